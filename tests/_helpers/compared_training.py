"""Training with and without the callback, to be compared bit by bit."""

from functools import cache

import torch
from torch.utils.data import Dataset

from lightning_leep import LEEPCallback
from tests._helpers.small_transfer import FEW_SCORES, Classifier, fit, make_data, make_source, trained_state


class Noisy(Dataset):
    """Augments with whatever random source it is given."""

    def __init__(self, draw) -> None:
        self.rows = make_data()
        self.draw = draw

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        inputs, label = self.rows[index]
        return inputs + float(self.draw()), label


def explicit(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def plain_state(**kwargs):
    """What training leaves behind without the callback, on the small problem as it is."""
    fit(module := Classifier(), **kwargs)
    return trained_state(module)


def run(loader, callback, module_class=Classifier, shared=True, dataloader=None, scoring=FEW_SCORES, **kwargs):
    """Everything that training leaves behind; ``shared`` if the source's body is what is trained."""
    source = make_source()
    module = module_class(source)
    callbacks = []
    if callback:
        scored = source if shared else make_source(seed=8)
        callbacks.append(LEEPCallback(scored, strict=True, dataloader=dataloader, scoring=scoring))
    fit(module, *callbacks, loader=loader, **kwargs)
    if callback:
        assert callbacks[0].report is not None
        assert len(callbacks[0].curve) >= 2
    return trained_state(module)
