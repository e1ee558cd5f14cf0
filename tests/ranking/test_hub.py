"""Models of timm and transformers, from checkpoints in a local folder; each with its own preprocessing."""

import json

import numpy as np
import pytest
import torch

from lightning_leep import Source, rank_sources, score
from lightning_leep.cli import main

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def pictures():
    """40 images, rows as from a data set: pairs of an image and its label."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    return [
        (Image.fromarray((rng.integers(0, 128, (40, 50, 3)) + 100 * label).astype(np.uint8)), int(label))
        for label in labels
    ]


def batches(pictures, transform):
    rows = [(transform(image), label) for image, label in pictures]
    return torch.utils.data.DataLoader(rows, 16)


def compare(ranking, expected, name):
    for field, value in ranking[name].scores.items():
        assert value == pytest.approx(getattr(expected, field), abs=1e-4), field
    assert ranking[name].error is None


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory):
    timm = pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=7)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    preprocessing = {"input_size": [3, 32, 32], "mean": [0.1] * 3, "std": [0.2] * 3, "crop_pct": 0.8, "num_classes": 7}
    config = {"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": preprocessing}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
def test_timm(timm_folder, pictures):
    timm = pytest.importorskip("timm")
    name = f"local-dir:{timm_folder}"
    sources = {"a": Source.from_timm(name, source_accuracy=0.5), "b": Source.from_timm(name)}
    ranking = rank_sources(sources, pictures, progress=False)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=7).eval()
    model.load_state_dict(torch.load(timm_folder / "pytorch_model.bin"))
    transform = timm.data.create_transform(
        **{"input_size": (3, 32, 32), "mean": (0.1,) * 3, "std": (0.2,) * 3, "crop_pct": 0.8}, interpolation="bicubic"
    )
    expected = score(model, batches(pictures, transform), 2, progress=False)
    compare(ranking, expected, "a")
    assert ranking["a"].scores == ranking["b"].scores
    assert ranking["a"].source_accuracy == 0.5


@pytest.mark.slow
def test_models_with_the_same_preprocessing_share_it(timm_folder, pictures):
    name, reads = f"local-dir:{timm_folder}", []

    class Counted(list):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    rank_sources({key: Source.from_timm(name) for key in "abc"}, Counted(pictures), progress=False)
    assert {reads.count(row) for row in range(1, len(pictures))} == {1}  # the first row is looked at before


@pytest.mark.slow
def test_kinds_of_timm_models_and_one_that_does_not_exist(pictures):
    pytest.importorskip("timm")
    names = ["test_vit", "test_convnext", "test_efficientnet", "no_such_model"]
    sources = {name: Source.from_timm(name, pretrained=False) for name in names}
    ranking = rank_sources(sources, pictures, progress=False)
    assert [source.name for source in ranking.sources if source.rank is None] == ["no_such_model"]
    assert "no_such_model" in ranking["no_such_model"].error


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_transformers(kind, tmp_path, pictures):
    hub = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "vit":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        model = hub.ViTForImageClassification(hub.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=5))
        processor = hub.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.3] * 3)
    else:
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
        model = hub.ResNetForImageClassification(hub.ResNetConfig(**sizes, num_labels=5))
        processor = hub.ConvNextImageProcessor(size={"shortest_edge": 32})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    ranking = rank_sources({kind: Source.from_transformers(str(tmp_path))}, pictures, progress=False)
    loader = batches(pictures, lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0])
    expected = score(model.eval(), loader, 2, progress=False)
    compare(ranking, expected, kind)


def test_short_forms_on_the_command_line(timm_folder, pictures, tmp_path, capsys):
    for number, (image, label) in enumerate(pictures):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    data = f"imagefolder:{tmp_path / 'images'}"
    assert main(["score", f"timm:local-dir:{timm_folder}", "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_source_classes"] == 7


@pytest.mark.parametrize("module", ["timm", "transformers"])
def test_without_the_package_the_message_says_how_to_install_it(module, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"lightning-leep\[{module}\]"):
        getattr(Source, f"from_{module}")("name")
