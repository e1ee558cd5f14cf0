"""The rows of a data set that a loader's sampler draws from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

#: Rows of a batch if the loader's own batch sampler has no fixed size.
DEFAULT_BATCH_SIZE = 32
#: Seed of random subsets, which are therefore the same in every run and on every process.
SUBSET_SEED = 0


def sampled_rows(loader: DataLoader, num_batches: int | None) -> tuple[Sequence[int], str | None]:
    """Return the indices of the rows that a loader draws from, each once, and a note about the choice, if needed.

    ``num_batches`` are those of an epoch of all processes if they are fewer than the loader has, else None. As many
    rows are returned as these hold: the same rows if they come in order, else random ones.
    """
    batch_sampler = _batch_sampler(loader)
    # A batch sampler of the user's may do anything with its sampler.
    sampler: Any = undistributed(batch_sampler.sampler) if type(batch_sampler) is BatchSampler else batch_sampler
    # A single row cannot be scored, whatever the size of a batch.
    limit = None if num_batches is None else max(2, num_batches * batch_size(loader))
    repeats = f"Each row counts once, however often the training loader's {type(sampler).__name__} draws it, if at all."

    if sampler is not batch_sampler and (listed := _as_list(sampler)) is not None:
        drawn = listed[:limit]
        indices = list(dict.fromkeys(drawn))
        return indices, (repeats if len(indices) < len(drawn) else None)
    if _draws_as(sampler, SequentialSampler):
        return range(len(sampler))[:limit], None
    if type(sampler) is DistributedSampler and not sampler.shuffle:
        return range(len(sampler.dataset))[:limit], None  # type: ignore[arg-type]

    population, note = _population(sampler), None
    if population is None:
        population = range(len(loader.dataset))  # type: ignore[arg-type]
        note = f"{repeats} If it holds rows out, pass `dataloader=`, a loader of the others."
    elif _draws_as(sampler, WeightedRandomSampler):
        note = repeats
    return population if limit is None else random_subset(population, limit), note


def random_subset(indices: Sequence[int], size: int) -> Sequence[int]:
    """Return at most ``size`` of the indices, in their order; the choice does not touch any other random state."""
    if size >= len(indices):
        return indices
    generator = torch.Generator().manual_seed(SUBSET_SEED)
    chosen = torch.randperm(len(indices), generator=generator)[:size].sort().values
    return [indices[i] for i in chosen.tolist()]


def undistributed(sampler: Any) -> Any:
    """Return the sampler that Lightning wrapped to divide it among processes, else the given one."""
    inner = getattr(getattr(sampler, "dataset", None), "_sampler", None)
    return sampler if inner is None else inner


def batch_size(loader: DataLoader) -> int:
    """Return the number of rows of a batch."""
    size = getattr(_batch_sampler(loader), "batch_size", None)
    return size if isinstance(size, int) and size > 0 else DEFAULT_BATCH_SIZE


def _batch_sampler(loader: DataLoader) -> Any:
    return undistributed(loader.sampler) if loader.batch_sampler is None else loader.batch_sampler


def _population(sampler: Any) -> Sequence[int] | None:
    """Return the rows that a sampler of torch draws from in random order; None for any other sampler."""
    if _draws_as(sampler, RandomSampler):
        return range(len(sampler.data_source))
    if type(sampler) is DistributedSampler:
        return range(len(sampler.dataset))  # type: ignore[arg-type]
    if _draws_as(sampler, SubsetRandomSampler):
        return list(sampler.indices)
    if _draws_as(sampler, WeightedRandomSampler):
        return sampler.weights.nonzero().flatten().tolist()
    return None


def _draws_as(sampler: Any, cls: type[Sampler]) -> bool:
    """Whether a sampler belongs to a class and draws as that class does."""
    return isinstance(sampler, cls) and type(sampler).__iter__ is cls.__iter__


def _as_list(rows: Any) -> list[Any] | None:
    if isinstance(rows, Tensor | np.ndarray):
        return rows.tolist()
    # A class of the user's may draw, or count, when it is read.
    return list(rows) if type(rows) in (list, tuple, range) else None
