"""The metric in a plain PyTorch loop, on one process or on several.

    python examples/custom_loop.py
    torchrun --nproc-per-node 2 examples/custom_loop.py

Each process scores its own share of the images; every process gets the LEEP of all images.
"""

import os

import torch
from digits import TARGET_DIGITS, load_digits, pretrain

from lightning_leep import LEEPMetric


def main() -> None:
    torch.set_num_threads(1)  # so that every process trains exactly the same source network
    if "WORLD_SIZE" in os.environ:
        torch.distributed.init_process_group("gloo")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

    source = pretrain().eval()
    images, labels = load_digits(TARGET_DIGITS)
    images, labels = images[rank::world], labels[rank::world]

    metric = LEEPMetric(num_target_classes=len(TARGET_DIGITS), num_source_classes=5)
    with torch.no_grad():
        for batch, target in zip(images.split(64), labels.split(64), strict=True):
            metric.update(source(batch), target)
    leep = metric.compute()  # the same on every process

    print(f"process {rank} of {world}: {len(labels)} images here, LEEP of all images {leep.item():.4f}", flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
