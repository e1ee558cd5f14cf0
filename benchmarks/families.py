"""Which parts of well-known networks are found, and that LEEP of each is that of its definition.

    python benchmarks/families.py [--check] > docs/models.md

It needs timm, transformers and peft. Each network has random weights and few small inputs, so that nothing is
downloaded. One pass of `score` finds the blocks whose outputs are scored and the features, the input of the head. LEEP
is compared with its definition in NumPy and float64, from the outputs of a forward pass of its own. With --check the
exit status is 1 if no features or fewer than two blocks are found somewhere, or a LEEP differs by more than 1e-6.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_leep import score

ROWS, BATCH, C, Z = 24, 12, 4, 17
#: Networks of timm that take images of 64 pixels, of 224 pixels, and that are told the size when they are made.
OF_64_PIXELS = """
resnet18 resnext26ts regnetx_002 regnety_002 convnext_atto convnextv2_atto efficientnet_lite0 mobilenetv2_035
mobilenetv3_small_050 mnasnet_small ghostnet_050 lcnet_035 tinynet_e rexnet_100 densenet121 dla46_c vgg11
hrnet_w18_small dpn48b skresnet18 ese_vovnet19b_dw hgnetv2_b0 pvt_v2_b0 poolformer_s12 edgenext_xx_small mobileone_s0
repvit_m0_9 fastvit_t8 starnet_s1 mambaout_femto inception_next_atto efficientvit_b0 mobilevitv2_050
"""
OF_224_PIXELS = "levit_128s resmlp_12_224 gmlp_ti16_224 mixer_s32_224 coat_lite_tiny xcit_nano_12_p16_224"
OF_ANY_SIZE = """
vit_tiny_patch16_224 deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 cait_xxs24_224 swin_tiny_patch4_window7_224
"""

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXT = {"vocab_size": 99, "pad_token_id": 0, "max_position_embeddings": 64}
IMAGE = {"image_size": 32, "patch_size": 8}
TRANSFORMERS = {
    **dict.fromkeys(("bert", "roberta", "electra", "mpnet", "deberta-v2", "gpt_neox", "mobilebert"), SMALL | TEXT),
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, **TEXT},
    "albert": SMALL | TEXT | {"embedding_size": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, **TEXT},
    **{kind: SMALL | TEXT | {"num_key_value_heads": 2} for kind in ("llama", "mistral", "qwen2", "gemma")},
    **dict.fromkeys(("vit", "beit", "dinov2"), SMALL | IMAGE),
    "swin": {
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 2,
        "image_size": 32,
        "patch_size": 4,
    },
    "convnext": {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2},
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"},
}
IMAGES = ("vit", "beit", "dinov2", "swin", "convnext", "resnet")


def images(side: int) -> Tensor:
    return torch.randn(ROWS, 3, side, side)


def texts() -> dict[str, Tensor]:
    """Words, of which the last ones of every other text are padding."""
    mask = torch.ones(ROWS, 10, dtype=torch.long)
    mask[::2, 7:] = 0
    return {"input_ids": torch.randint(1, 99, (ROWS, 10)) * mask, "attention_mask": mask}


def transformer(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification

    config = AutoConfig.for_model(kind, num_labels=Z, **TRANSFORMERS[kind])
    if kind in IMAGES:
        return AutoModelForImageClassification.from_config(config), {"pixel_values": images(32)}
    return AutoModelForSequenceClassification.from_config(config), texts()


def low_rank_adapters() -> tuple[nn.Module, dict[str, Tensor]]:
    from peft import LoraConfig, get_peft_model

    network, inputs = transformer("bert")
    return get_peft_model(network, LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"])), inputs


def networks() -> Iterator[tuple[str, str, Callable[[], tuple[nn.Module, Any]]]]:
    """Library, name, and what makes the network and its inputs."""
    import timm

    for names, side in ((OF_64_PIXELS, 64), (OF_224_PIXELS, 224)):
        for name in names.split():
            yield "timm", name, lambda name=name, side=side: (timm.create_model(name, num_classes=Z), images(side))
    for name in OF_ANY_SIZE.split():
        yield "timm", name, lambda name=name: (timm.create_model(name, num_classes=Z, img_size=64), images(64))
    for kind in TRANSFORMERS:
        yield "transformers", kind, lambda kind=kind: transformer(kind)
    yield "peft", "bert with LoRA", low_rank_adapters


def batches(inputs: Any, labels: Tensor) -> list[Any]:
    if isinstance(inputs, Tensor):
        return list(zip(inputs.split(BATCH), labels.split(BATCH), strict=True))
    columns = {name: value.split(BATCH) for name, value in {**inputs, "labels": labels}.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def leep_by_hand(network: nn.Module, loader: list[Any], labels: Tensor) -> float:
    """Mean log of the EEP, of the outputs of a pass of its own, in float64."""
    network.eval()
    with torch.no_grad():
        outputs = [
            network(**{name: value for name, value in batch.items() if name != "labels"}).logits
            if isinstance(batch, dict)
            else network(batch[0])
            for batch in loader
        ]
    logits, y = torch.cat(outputs).double().numpy(), labels.numpy()
    theta = np.exp(logits - logits.max(axis=1, keepdims=True))
    theta /= theta.sum(axis=1, keepdims=True)  # [n, Z]
    joint = np.stack([theta[y == k].sum(axis=0) for k in range(C)])  # [C, Z]
    total = joint.sum(axis=0)
    conditional = np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)  # a source class may never be said
    return float(np.log((conditional[y] * theta).sum(axis=1)).mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 if something is not found or differs")
    check = parser.parse_args().check
    labels, good = torch.arange(ROWS) % C, True
    print("# Models\n")
    print("What `python benchmarks/families.py --check` finds in networks with random weights and small inputs: how")
    print("many blocks are scored, how many features the head reads and which layer the head is, and how far LEEP is")
    print("from its definition in float64.\n")
    print("| library | network | blocks | features | head | LEEP off by |\n|---|---|---|---|---|---|")
    for library, name, make in networks():
        torch.manual_seed(0)
        network, inputs = make()
        loader = batches(inputs, labels)
        report = score(network, loader, C, num_permutations=0, progress=False)
        off = abs(report.leep - leep_by_hand(network, loader, labels))
        head = report.feature_layer if report.num_features else "none"
        found = len(report.layers) >= 2 and head not in ("none", "(logits)")
        good &= found and off < 1e-6
        print(f"| {library} | {name} | {len(report.layers)} | {report.num_features} | {head} | {off:.0e} |", flush=True)
    return int(check and not good)


if __name__ == "__main__":
    sys.exit(main())
