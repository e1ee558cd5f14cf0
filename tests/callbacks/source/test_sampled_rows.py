"""Rows that the training loader draws are scored, each once, or the report tells the difference."""

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lightning_leep.scoring.shared_rows import given_data
from tests._helpers.recording_source import indices_of
from tests._helpers.small_transfer import DATA, train_loader


def scored(loader):
    """The rows that are scored of what a loader draws, and the notes on them."""
    data = given_data(loader, None)
    return indices_of(torch.cat([inputs for inputs, _ in data.batches])), data.notes


LOADERS = {
    "subset sampler": (lambda: train_loader(DATA, shuffle=False, sampler=SubsetRandomSampler([4, 2, 30])), [4, 2, 30]),
    "bootstrap": (lambda: train_loader(DATA, shuffle=False, sampler=RandomSampler(DATA, True, 10)), list(range(50))),
    "batch sampler": (lambda: DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 8, True)), [*range(50)]),
    "batch sampler as sampler": (
        lambda: DataLoader(DATA, sampler=BatchSampler(SubsetRandomSampler([5, 6, 9, 1]), 2, False), batch_size=None),
        [5, 6, 9, 1],
    ),
    "list": (lambda: train_loader(DATA, shuffle=False, sampler=[4, 2, 30]), [4, 2, 30]),
    "tensor": (lambda: train_loader(DATA, shuffle=False, sampler=torch.tensor([4, 2, 30])), [4, 2, 30]),
    "batch sampler of a list": (
        lambda: DataLoader(DATA, batch_sampler=BatchSampler([4, 2, 30, 8], 2, False)),
        [4, 2, 30, 8],
    ),
}


@pytest.mark.parametrize("name", LOADERS)
def test_sampler(name):
    loader, wanted = LOADERS[name]
    assert scored(loader()) == (wanted, ())


REPEATING = {
    "weighted": (
        lambda: train_loader(DATA, shuffle=False, sampler=WeightedRandomSampler([1.0] * 40 + [0.0] * 10, 15)),
        range(40),
        "WeightedRandomSampler",
    ),
    "list": (lambda: train_loader(DATA, shuffle=False, sampler=[3, 1, 3, 2]), [3, 1, 2], "list"),
}


@pytest.mark.parametrize("kind", REPEATING)
def test_rows_that_a_sampler_repeats_count_once(kind):
    loader, rows, name = REPEATING[kind]
    indices, (note,) = scored(loader())
    assert indices == list(rows)
    assert "Each row counts once" in note
    assert f"loader's {name} repeats it" in note


class HalfOfRandom(RandomSampler):
    """The user's own: holds rows out, in a way that only drawing would tell."""

    def __iter__(self):
        return iter(list(super().__iter__())[:25])

    def __len__(self) -> int:
        return 25


class Pairs(BatchSampler):
    def __iter__(self):
        return iter([[0, 1], [2, 3]])

    def __len__(self) -> int:
        return 2


OWN_SAMPLERS = {
    "HalfOfRandom": lambda: train_loader(DATA, shuffle=False, sampler=HalfOfRandom(DATA)),
    "Pairs": lambda: DataLoader(DATA, batch_sampler=Pairs(SequentialSampler(DATA), 2, False)),
    "list": lambda: DataLoader(DATA, batch_sampler=[[4, 2, 30], [7, 8]]),
}


@pytest.mark.parametrize("name", OWN_SAMPLERS)
def test_sampler_that_cannot_be_followed_is_noted(name):
    indices, (note,) = scored(OWN_SAMPLERS[name]())
    assert indices == list(range(50))
    assert f"loader's {name} repeats it" in note
    assert "counts once" in note
    assert "pass `dataloader=`" in note
