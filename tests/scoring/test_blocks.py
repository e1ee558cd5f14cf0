"""Blocks of small networks that are built as the common ones are."""

import pytest
import torch
from torch import nn

from lightning_leep.scoring.blocks import find_blocks


class Network(nn.Module):
    """Any parts by name; a subclass is a kind of block of its own."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Squeeze(Network):
    def __init__(self) -> None:
        super().__init__(fc1=nn.Conv2d(4, 2, 1), fc2=nn.Conv2d(2, 4, 1))


class Residual(Network):
    """Two convolutions, in a container as in torchvision's mobile networks, and a squeeze."""

    def __init__(self) -> None:
        unit = [nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(2)]
        super().__init__(block=nn.Sequential(*unit, Squeeze()))


class FeedForward(Network):
    def __init__(self) -> None:
        super().__init__(fc1=nn.Linear(4, 8), fc2=nn.Linear(8, 4))


class Experts(Network):
    def __init__(self) -> None:
        super().__init__(experts=nn.ModuleList(FeedForward() for _ in range(3)))


class Attention(Network):
    """A module for each attention head, as in many a lecture."""

    def __init__(self) -> None:
        super().__init__(heads=nn.ModuleList(FeedForward() for _ in range(2)), proj=nn.Linear(4, 4))


class Transformer(Network):
    def __init__(self) -> None:
        super().__init__(norm=nn.LayerNorm(4), attention=Attention(), experts=Experts())


class Mixer(Network):
    """Two parts of the same class, which are no blocks: other modules stand beside them."""

    def __init__(self) -> None:
        super().__init__(norm=nn.LayerNorm(4), tokens=FeedForward(), channels=FeedForward())


class Stage(Network):
    """As in Swin and ConvNeXt."""

    def __init__(self, depth: int) -> None:
        super().__init__(downsample=nn.Conv2d(4, 4, 2), blocks=row(Residual, depth))


class Row(Network):
    """A stage without a container, as in timm's RegNet."""

    def __init__(self) -> None:
        super().__init__(b1=Residual(), b2=Residual())


class Branches(Network):
    """Parallel branches, as in HRNet."""

    def __init__(self) -> None:
        super().__init__(branches=nn.ModuleList(row(Residual) for _ in range(2)), fuse=nn.Conv2d(4, 4, 1))


class Dense(nn.ModuleDict):
    """Joins the outputs of all its layers, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__({"layer1": FeedForward(), "layer2": FeedForward()})

    def forward(self, x):
        return torch.cat([layer(x) for layer in self.values()], 1)


def stem():
    return {"conv1": nn.Conv2d(3, 4, 3), "bn1": nn.BatchNorm2d(4)}


def row(kind, count=2):
    return nn.Sequential(*(kind() for _ in range(count)))


NETWORKS = {
    "ResNet": (
        Network(**stem(), layer1=row(Residual), layer2=row(Residual, 1), fc=nn.Linear(4, 2)),
        ["layer1.0", "layer1.1", "layer2.0"],
    ),
    "Swin": (
        Network(**stem(), layers=nn.Sequential(Stage(2), Stage(1))),
        ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1"],
    ),
    "RegNet": (Network(**stem(), s1=Row(), s2=Row()), ["s1.b1", "s1.b2", "s2.b1", "s2.b2"]),
    "HRNet": (Network(**stem(), stage2=row(Branches)), ["stage2.0", "stage2.1"]),
    "DenseNet": (
        Network(features=nn.Sequential(nn.Conv2d(3, 4, 1), Dense(), nn.Conv2d(8, 4, 1), Dense())),
        ["features.1", "features.3"],
    ),
    "BERT": (
        Network(
            bert=Network(
                embeddings=Network(words=nn.Embedding(9, 4), positions=nn.Embedding(9, 4)),
                encoder=Network(layer=nn.ModuleList(Transformer() for _ in range(3))),
                pooler=nn.Linear(4, 4),
            ),
            classifier=nn.Linear(4, 2),
        ),
        ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.encoder.layer.2"],
    ),
    "Mixer": (Network(stem=nn.Conv2d(3, 4, 2), blocks=row(Mixer)), ["blocks.0", "blocks.1"]),
    "Inception": (
        Network(conv=nn.Conv2d(3, 4, 1), mixed_a=Residual(), mixed_b=Residual(), mixed_c=Squeeze()),
        ["mixed_a", "mixed_b", "mixed_c"],
    ),
    "a wrapper of a plain network": (
        Network(
            model=Network(features=nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), fc=nn.Linear(4, 2)),
            metric=nn.Identity(),
        ),
        ["model.features", "model.fc"],
    ),
    "VGG": (
        nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout()),
            *(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)),
        ),
        ["2", "6", "8"],
    ),
    "ResNet9": (
        Network(
            conv=nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
            res=nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()) for _ in range(2))),
            fc=nn.Linear(4, 2),
        ),
        ["conv", "res.0", "res.1", "fc"],
    ),
    "MobileNetV1": (
        nn.Sequential(
            nn.Conv2d(3, 4, 1), *(Network(dw=nn.Conv2d(4, 4, 3, groups=4), pw=nn.Conv2d(4, 4, 1)) for _ in "ab")
        ),
        ["0", "1", "2"],
    ),
    "lazy": (nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2)), ["1", "2"]),
    "nothing to find": (nn.Linear(4, 2), []),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks(name):
    network, expected = NETWORKS[name]
    assert find_blocks(network) == expected


def test_shared_blocks_have_one_name():
    shared = Residual()
    assert find_blocks(Network(a=shared, b=shared, c=Residual())) == ["a", "c"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules_are_passed_over():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    assert find_blocks(Network(scripted=scripted, fc1=nn.Linear(4, 4), fc2=nn.Linear(4, 4))) == ["fc1", "fc2"]
