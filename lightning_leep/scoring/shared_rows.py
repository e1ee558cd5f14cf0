"""The rows that a process scores: its share of what a loader's sampler draws from, in a loader of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lightning_leep.utils.distributed import this_process

#: Rows of a batch if the loader's own batch sampler has no fixed size.
DEFAULT_BATCH_SIZE = 32
#: Seed of random subsets, which are therefore the same in every run and on every process.
SUBSET_SEED = 0
#: Packages whose loaders make batches the way a DataLoader does.
LOADER_PACKAGES = {"torch", "torchdata"}


@dataclass(frozen=True)
class ScoringData:
    """What one process scores."""

    batches: Iterable[Any]  #: its batches
    dataset: Any  #: the data set behind them, where it is known
    notes: tuple[str, ...] = ()  #: what the report says about the choice of rows


def given_data(loader: Iterable[Any], max_samples: int | None) -> ScoringData:
    """Return this process's share of the data that the user wants scored: of rows with an index, or of a sequence.

    Of any other iterable each process scores all that it yields; with several processes, a note says so.
    """
    if isinstance(loader, DataLoader) and has_index(loader) and not makes_its_own_batches(loader):
        return rebuilt(loader, None, max_samples)
    if max_samples is not None:
        raise ValueError(
            "`max_samples` needs a DataLoader over a data set with an index, to take a random subset of it; got "
            f"{type(loader).__name__}. Leave it out and let `dataloader` yield as many rows as are to be scored."
        )
    if isinstance(loader, Sequence):
        share = shard(range(len(loader)))
        return ScoringData(loader if len(share) == len(loader) else Subset(loader, share), None)  # type: ignore[arg-type]
    dataset, notes = getattr(loader, "dataset", None), tuple[str, ...]()
    if (world_size := this_process()[1]) > 1:
        kind = type(loader).__name__ if dataset is None else f"{type(loader).__name__} of a {type(dataset).__name__}"
        notes = (
            f"Each of the {world_size} processes scored all that `dataloader`, a {kind}, yields there: rows that come "
            "on several processes count several times.",
        )
    return ScoringData(loader, dataset, notes)


def has_index(loader: DataLoader) -> bool:
    """Whether the rows of a loader can be read by index, one by one."""
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        return False
    return loader.batch_sampler is not None or isinstance(undistributed(loader.sampler), BatchSampler)


def makes_its_own_batches(loader: DataLoader) -> bool:
    """Whether a loader of another package has a way of its own to make batches."""
    methods = (getattr(type(loader), name) for name in ("__iter__", "_get_iterator"))
    return any(method.__module__.partition(".")[0] not in LOADER_PACKAGES for method in methods)


def rebuilt(loader: DataLoader, num_batches: int | None, max_samples: int | None) -> ScoringData:
    """Return this process's share of the rows of :func:`sampled_rows`, at most ``max_samples`` of all processes."""
    indices, note = sampled_rows(loader, num_batches)
    if max_samples is not None:
        indices = random_subset(indices, max_samples)
    rows: int | None = batch_size(loader)
    sampler: Iterable[Any] = shard(indices)
    if loader.batch_sampler is None:  # the data set is asked for a list of rows at a time
        sampler, rows = BatchSampler(sampler, batch_size(loader), drop_last=False), None
    batches: DataLoader = DataLoader(
        loader.dataset,
        batch_size=rows,
        sampler=sampler,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        # The user's generator must not be advanced. Workers are not persistent: they end with the pass.
        generator=torch.Generator().manual_seed(SUBSET_SEED),
    )
    return ScoringData(batches, loader.dataset, () if note is None else (note,))


def shard(items: Sequence[Any]) -> Sequence[Any]:
    """Return this process's items: every world-size-th one, each on one process only and none repeated."""
    rank, world_size = this_process()
    return items[rank::world_size]


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
    repeats = (
        f"Each row counts once, even if the training loader's {type(sampler).__name__} repeats it or leaves it out."
    )

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
