"""The rows to score: a loader of this process's share of the training data, beside the one that training uses."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

#: Rows of a batch when the loader's own batch sampler has no fixed size.
DEFAULT_BATCH_SIZE = 32


@dataclass(frozen=True)
class ScoringData:
    """What one process scores.

    Attributes:
        batches: Its batches.
        dataset: Where they come from; None if they come from nothing with a ``dataset``.
        notes: What has to be said about the choice of rows.
    """

    batches: Iterable[Any]
    dataset: Any
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """Rows of a data set that a sampler draws from; ``ordered`` if every epoch takes them in this order."""

    indices: Sequence[int]
    ordered: bool
    note: str | None = None


def training_data(trainer: Any, max_samples: int | None, seed: int) -> ScoringData:
    """This process's share of the data that the trainer trains on.

    With fewer training batches an epoch than the loader has (``limit_train_batches``, ``overfit_batches``,
    ``fast_dev_run``), as many rows as those batches hold: the same ones if they are taken in order, else random ones.

    Args:
        trainer: The trainer, in ``fit``.
        max_samples: Largest number of rows of all processes; the subset is random, from ``seed`` alone.
        seed: Seed of the subset and of the loader's worker processes.

    Raises:
        ValueError: If the rows cannot be reached without disturbing the trainer's own iteration.
    """
    loader = trainer.train_dataloader
    if not isinstance(loader, DataLoader):
        raise ValueError(
            "The training data must come from one torch DataLoader to be scored from a copy of it, got "
            f"{type(loader).__name__}. Pass `dataloader=`, a loader of the labelled training data, to LEEPCallback."
        )
    if not _rebuildable(loader):
        raise ValueError(
            f"The training loader's {type(loader.dataset).__name__} has no second copy of its rows (it is iterable, or "
            "yields whole batches). Pass `dataloader=`, a loader of the labelled training data, to LEEPCallback."
        )
    try:
        length: float = len(loader)
    except TypeError:  # of a batch sampler without a length
        length = math.inf
    limit = None
    if trainer.num_training_batches < length:
        # One row alone cannot be scored, whatever the size of a batch.
        limit = max(2, int(trainer.num_training_batches) * _batch_size(loader) * trainer.world_size)
    return _rebuild(loader, limit, max_samples, seed)


def given_data(loader: Iterable[Any], max_samples: int | None, seed: int) -> ScoringData:
    """This process's share of the data that the user wants scored.

    A loader whose rows can be indexed is divided among the processes; of any other iterable each process scores what
    it yields there.

    Raises:
        ValueError: If ``max_samples`` is given and rows cannot be indexed.
    """
    if isinstance(loader, DataLoader) and _rebuildable(loader):
        return _rebuild(loader, None, max_samples, seed)
    if max_samples is not None:
        raise ValueError(
            "`max_samples` needs a DataLoader over a data set with an index, to take a random subset of it; got "
            f"{type(loader).__name__}. Leave it out and let `dataloader` yield as many rows as are to be scored."
        )
    return ScoringData(loader, getattr(loader, "dataset", None))


def _rebuildable(loader: DataLoader) -> bool:
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        return False
    return loader.batch_sampler is not None or isinstance(_undistributed(loader.sampler), BatchSampler)


def _rebuild(loader: DataLoader, limit: int | None, max_samples: int | None, seed: int) -> ScoringData:
    rows = _sampled_rows(loader)
    indices = rows.indices
    if limit is not None:
        indices = indices[:limit] if rows.ordered else random_subset(indices, limit, seed)
    if max_samples is not None:
        indices = random_subset(indices, max_samples, seed)
    share = shard(indices)
    batch_size: int | None = _batch_size(loader)
    sampler: Iterable[Any] = share
    if loader.batch_sampler is None:  # the data set is asked for a list of rows at a time
        sampler, batch_size = BatchSampler(share, _batch_size(loader), drop_last=False), None
    batches: DataLoader = DataLoader(
        loader.dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        # The user's generator must not be advanced. Workers end with the pass: they are not persistent.
        generator=torch.Generator().manual_seed(seed),
    )
    return ScoringData(batches, loader.dataset, () if rows.note is None else (rows.note,))


def random_subset(indices: Sequence[int], size: int, seed: int) -> Sequence[int]:
    """At most ``size`` of the indices, in their order, drawn with a generator of its own."""
    if size >= len(indices):
        return indices
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(indices), generator=generator)[:size].sort().values
    return [indices[i] for i in chosen.tolist()]


def shard(indices: Sequence[int]) -> Sequence[int]:
    """Every world-size-th index, from this process's rank on: each index once, none repeated to fill up."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return indices[torch.distributed.get_rank() :: torch.distributed.get_world_size()]
    return indices


def _sampled_rows(loader: DataLoader) -> Rows:
    batch_sampler = loader.batch_sampler
    if batch_sampler is None:
        batch_sampler = _undistributed(loader.sampler)
    # A batch sampler of the user's own may do anything with its sampler.
    sampler = _undistributed(batch_sampler.sampler) if type(batch_sampler) is BatchSampler else batch_sampler
    if isinstance(sampler, SequentialSampler):
        return Rows(range(len(sampler)), ordered=True)
    if isinstance(sampler, RandomSampler):
        return Rows(range(len(sampler.data_source)), ordered=False)
    if type(sampler) is DistributedSampler:
        return Rows(range(len(sampler.dataset)), ordered=not sampler.shuffle)  # type: ignore[arg-type]
    if isinstance(sampler, SubsetRandomSampler):
        return Rows(list(sampler.indices), ordered=False)
    note = f"Each row counts once, however often, if ever, the training loader's {type(sampler).__name__} draws it."
    if isinstance(sampler, WeightedRandomSampler):
        return Rows(sampler.weights.nonzero().flatten().tolist(), ordered=False, note=note)
    return Rows(range(len(loader.dataset)), ordered=False, note=note)  # type: ignore[arg-type]


def _undistributed(sampler: Any) -> Any:
    """The sampler that Lightning wrapped to divide it among processes, else the one given."""
    inner = getattr(getattr(sampler, "dataset", None), "_sampler", None)
    return sampler if inner is None else inner


def _batch_size(loader: DataLoader) -> int:
    batch_sampler = _undistributed(loader.sampler) if loader.batch_sampler is None else loader.batch_sampler
    size = getattr(batch_sampler, "batch_size", None)
    return size if isinstance(size, int) and size > 0 else DEFAULT_BATCH_SIZE
