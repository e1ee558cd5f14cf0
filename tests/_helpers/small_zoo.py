"""Sources of known quality on easy data, for tests of rankings."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import rank_sources, score

C, D, N = 3, 8, 150


def make_rows(n: int = N, seed: int = 0) -> TensorDataset:
    """Rows whose class shows in the first C inputs."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (n,), generator=generator)
    inputs = torch.randn(n, D, generator=generator) + 3 * nn.functional.one_hot(labels, D)
    return TensorDataset(inputs, labels)


class Sees(nn.Module):
    """A classifier whose features are some of the inputs: the first C tell the class, the others nothing."""

    def __init__(self, *columns: int, num_source_classes: int = 4) -> None:
        super().__init__()
        self.columns = list(columns)
        self.fc = nn.Linear(len(columns), num_source_classes)
        weights = torch.linspace(-1, 1, self.fc.weight.numel()).reshape_as(self.fc.weight).sin()
        self.fc.weight.data, self.fc.bias.data = weights, torch.zeros(num_source_classes)

    def forward(self, x):
        return self.fc(x[:, self.columns])


def zoo() -> dict[str, Sees]:
    """A good source, one that sees two of three classes' signs, and one that sees noise; not in this order."""
    return {"blind": Sees(5, 6, 7), "good": Sees(0, 1, 2), "half": Sees(0, 6, 7)}


def rank(sources, data=None, **kwargs):
    """The ranking of sources on the rows, without a progress bar."""
    return rank_sources(sources, make_rows() if data is None else data, **{"progress": False, **kwargs})


def names(ranking):
    return [source.name for source in ranking.sources]


def scored(source, data=None, **kwargs):
    return score(source, DataLoader(make_rows() if data is None else data, 64), C, progress=False, **kwargs)
