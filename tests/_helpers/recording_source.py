"""A source that tells which rows are scored."""

import torch
from torch import nn

from lightning_leep import LEEPCallback
from tests._helpers.small_transfer import DATA, FEW_SCORES, Classifier, D, Z, fit, make_source, train_loader


def indices_of(rows: torch.Tensor) -> list[int]:
    """Places of rows ``[n, D]`` in ``DATA``."""
    return [int((DATA.tensors[0] == row).all(1).nonzero().item()) for row in rows]


class Counting(nn.Module):
    """A source that counts its calls: five for the data of a fit."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, Z)
        calls: list[None] = []
        self.remembered = lambda: calls  # a number among the attributes would be as before after scoring

    def forward(self, inputs):
        self.remembered().append(None)
        return self.layer(inputs)

    @property
    def calls(self) -> int:
        return len(self.remembered())


class Recorder(nn.Module):
    """A source that remembers the rows that it was shown, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.network = make_source()
        shown: list[torch.Tensor] = []
        modes: list[bool] = []
        self.remembered = lambda: (shown, modes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.shown.append(inputs)
        self.modes.append(any(layer.training for layer in self.modules()))
        return self.network(inputs)

    @property
    def shown(self) -> list[torch.Tensor]:
        return self.remembered()[0]

    @property
    def modes(self) -> list[bool]:
        return self.remembered()[1]

    @property
    def indices(self) -> list[int]:
        """Rows of ``DATA`` that were shown."""
        return indices_of(torch.cat(self.shown))


def score(loader=None, source=None, trainer_options=None, **kwargs):
    """Fit with the callback; return it and its source."""
    source = source or Recorder()
    callback = LEEPCallback(source, strict=True, **{"scoring": FEW_SCORES, **kwargs})
    fit(Classifier(), callback, loader=train_loader(DATA) if loader is None else loader, **(trainer_options or {}))
    return callback.report, source
