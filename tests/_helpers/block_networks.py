"""A source of several blocks, and modules that fine-tune a copy of it."""

import copy

import torch
from torch import nn

from tests._helpers.small_transfer import C, Classifier, D


class Block(nn.Module):
    """A residual block with a normalisation that keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.second(self.norm(self.first(x)).relu())


class Network(nn.Module):
    """A stem with a parameter of its own, three blocks, a last normalisation, and a head unless it is taken away."""

    def __init__(self, num_outputs: int | None = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shift = nn.Parameter(torch.zeros(8))
        self.stem = nn.Linear(D, 8)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.norm = nn.LayerNorm(8)
        nn.init.normal_(self.norm.weight)  # weights that are all the same do not tell where they come from
        self.head = nn.Identity() if num_outputs is None else nn.Linear(8, num_outputs)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x) + self.shift)))


class Tuned(Classifier):
    """Fine-tunes a copy of a network with a new head in the place of the old one."""

    def __init__(self, network: nn.Module | None = None, make_optimizer=None) -> None:
        super().__init__()
        del self.body, self.head, self.source
        self.net = copy.deepcopy(network or Network())
        self.net.head = nn.Linear(8, C)
        self.make_optimizer = make_optimizer

    def forward(self, inputs):
        return self.net(inputs)

    def configure_optimizers(self):
        return self.make_optimizer(self) if self.make_optimizer else super().configure_optimizers()


class Numbered(Classifier):
    """Takes a copy of the source's children without their names, as is usual with torchvision."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*list(copy.deepcopy(source).children())[:-1])


def frozen(module: nn.Module, *parts: str) -> nn.Module:
    """The module, of which the parts of these names need no gradient."""
    for name in parts:
        module.get_submodule(name).requires_grad_(False)
    return module
