"""Rows that the training loader draws are scored, each once, or the report tells the difference."""

import re

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from tests._helpers.recording_source import score
from tests._helpers.small_transfer import DATA, train_loader

pytestmark = pytest.mark.usefixtures("no_forks")
LOADERS = {
    "subset sampler": (lambda: train_loader(DATA, shuffle=False, sampler=SubsetRandomSampler([4, 2, 30])), [4, 2, 30]),
    "subset": (lambda: train_loader(Subset(DATA, [4, 2, 30])), [4, 2, 30]),
    "concatenation": (lambda: train_loader(ConcatDataset([Subset(DATA, [7, 8]), Subset(DATA, [1])])), [7, 8, 1]),
    "bootstrap": (lambda: train_loader(DATA, shuffle=False, sampler=RandomSampler(DATA, True, 10)), list(range(50))),
    "batch sampler": (lambda: DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 8, True)), [*range(50)]),
    "batch sampler as sampler": (
        lambda: DataLoader(DATA, sampler=BatchSampler(SubsetRandomSampler([5, 6, 9, 1]), 2, False), batch_size=None),
        [5, 6, 9, 1],
    ),
    "list": (lambda: train_loader(DATA, shuffle=False, sampler=[4, 2, 30]), [4, 2, 30]),
    "tensor": (lambda: train_loader(DATA, shuffle=False, sampler=torch.tensor([4, 2, 30])), [4, 2, 30]),
    "range": (lambda: train_loader(DATA, shuffle=False, sampler=range(0, 50, 20)), [0, 20, 40]),
    "batch sampler of a list": (
        lambda: DataLoader(DATA, batch_sampler=BatchSampler([4, 2, 30, 8], 2, False)),
        [4, 2, 30, 8],
    ),
    "list of batches": (lambda: DataLoader(DATA, batch_sampler=[[4, 2, 30], [7, 8]]), [4, 2, 30, 7, 8]),
    "tensors of batches": (
        lambda: DataLoader(DATA, batch_sampler=torch.tensor([4, 2, 30, 8]).split(2)),
        [4, 2, 30, 8],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_sampler(name):
    loader, wanted = LOADERS[name]
    report, source = score(loader())
    assert source.indices == wanted
    assert not any("draws it" in note for note in report.notes)


REPEATING = {
    "weighted": (
        lambda: train_loader(DATA, shuffle=False, sampler=WeightedRandomSampler([1.0] * 40 + [0.0] * 10, 15)),
        range(40),
        "WeightedRandomSampler",
    ),
    "list": (lambda: train_loader(DATA, shuffle=False, sampler=[3, 1, 3, 2]), [3, 1, 2], "list"),
    "list of batches": (lambda: DataLoader(DATA, batch_sampler=([0, 1], [1, 2]) * 3), [0, 1, 2], "tuple"),
}


@pytest.mark.parametrize("kind", REPEATING)
def test_rows_that_a_sampler_repeats_count_once(kind):
    loader, rows, name = REPEATING[kind]
    report, source = score(loader())
    assert source.indices == list(rows)
    assert sum("Each row counts once" in note and f"loader's {name} draws it" in note for note in report.notes) == 1


@pytest.mark.parametrize(
    ("loader", "wanted"),
    [
        (lambda: train_loader(DATA, shuffle=False, sampler=list(range(49, -1, -1))), [*range(49, 29, -1)]),
        (lambda: DataLoader(DATA, batch_sampler=[[7, 3, 9], [2, 1], [5, 6, 8]]), [7, 3, 9, 2, 1]),
        (lambda: DataLoader(DATA, batch_sampler=[[7, 3], [3, 2], [5, 6]]), [7, 3, 2]),
    ],
    ids=["list", "batches of different size", "batches that overlap"],
)
def test_first_batches_of_a_list(loader, wanted):
    _, source = score(loader(), trainer_options={"limit_train_batches": 2})
    assert source.indices == wanted


class Half(Sampler):
    """The user's own: holds rows out, in a way that only drawing would tell."""

    def __init__(self, rows: int = 30) -> None:
        self.rows = rows

    def __iter__(self):
        return iter(torch.randperm(self.rows).tolist())

    def __len__(self) -> int:
        return self.rows


class HalfOfRandom(RandomSampler):
    def __iter__(self):
        return iter(list(super().__iter__())[:25])

    def __len__(self) -> int:
        return 25


class Pairs(BatchSampler):
    def __iter__(self):
        return iter([[0, 1], [2, 3]])

    def __len__(self) -> int:
        return 2


class Unsized(Half):
    __len__ = None


OWN_SAMPLERS = {
    "sampler": (lambda: train_loader(DATA, shuffle=False, sampler=Half()), "Half draws 30 rows an epoch.* all 50 "),
    "random": (
        lambda: train_loader(DATA, shuffle=False, sampler=HalfOfRandom(DATA)),
        "HalfOfRandom draws 25 rows",
    ),
    "batch sampler": (lambda: DataLoader(DATA, batch_sampler=Pairs(Half(), 2, False)), "Pairs draws 4 rows an epoch"),
    "all rows": (lambda: train_loader(DATA, shuffle=False, sampler=Half(50)), "Each row counts once.*Half draws it"),
    "no length": (
        lambda: DataLoader(DATA, batch_sampler=BatchSampler(Unsized(), 10, False)),
        "Each row counts once.*Unsized draws it",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OWN_SAMPLERS)
def test_sampler_that_cannot_be_followed_is_noted(kind):
    """With numbers, where it tells that it leaves rows out."""
    loader, said = OWN_SAMPLERS[kind]
    report, source = score(loader())
    assert source.indices == list(range(50))
    (note,) = [note for note in report.notes if "draws" in note]
    assert re.search(said, note)
    assert ("pass `dataloader=`" in note) == ("an epoch" in note)
