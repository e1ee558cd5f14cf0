"""The rows that a process scores: its share of what a loader draws from, in a loader of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset

from lightning_leep.scoring.sampled_rows import (
    SUBSET_SEED,
    batch_size,
    random_subset,
    sampled_rows,
    undistributed,
)
from lightning_leep.utils.distributed import this_process

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
            f"Each of the {world_size} processes scored all that `dataloader`, a {kind}, yields on it: rows that come "
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
