"""The rows to score: a loader of this process's share of the training data, beside the one that training uses."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset

from lightning_leep.callbacks.source.sampled_rows import batch_size, random_subset, sampled_rows, undistributed
from lightning_leep.utils.distributed import this_process

#: Where loaders that make their batches as a DataLoader does are defined.
LOADER_PACKAGES = {"torch", "torchdata"}


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
    if _makes_its_own_batches(loader):
        raise ValueError(
            f"{type(loader).__name__}, the training loader, makes its batches in a way of its own, which a copy of it "
            "would not. Pass `dataloader=`, another loader of the labelled training data, to LEEPCallback."
        )
    if not _has_index(loader):
        raise ValueError(
            f"The training loader's {type(loader.dataset).__name__} has no second copy of its rows (it is iterable, or "
            "yields whole batches). Pass `dataloader=`, a loader of the labelled training data, to LEEPCallback."
        )
    try:
        length: float = len(loader)
    except TypeError:  # of a batch sampler without a length
        length = math.inf
    num_batches = None
    if trainer.num_training_batches < length:
        num_batches = int(trainer.num_training_batches) * trainer.world_size
    return _rebuild(loader, num_batches, max_samples, seed)


def given_data(loader: Iterable[Any], max_samples: int | None, seed: int) -> ScoringData:
    """This process's share of the data that the user wants scored.

    A loader whose rows can be indexed is divided among the processes, and a sequence of batches batch by batch. Of any
    other iterable each process scores what it yields there; with several processes a note says so.

    Raises:
        ValueError: If ``max_samples`` is given and rows cannot be indexed.
    """
    if isinstance(loader, DataLoader) and _has_index(loader) and not _makes_its_own_batches(loader):
        return _rebuild(loader, None, max_samples, seed)
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
            "on several of them count several times.",
        )
    return ScoringData(loader, dataset, notes)


def check_not_trained_on(loader: Iterable[Any], trainer: Any) -> None:
    """Raise ``ValueError`` if reading a loader would advance what the trainer reads itself."""
    for trained in tree_leaves(trainer.train_dataloader):
        if loader is trained:
            raise ValueError(
                "`dataloader` must be another loader than the one that is trained on: reading it disturbs training."
            )
        dataset = getattr(loader, "dataset", None)
        # An index leaves no trace, and workers read copies.
        if (
            isinstance(dataset, IterableDataset)
            and dataset is getattr(trained, "dataset", None)
            and getattr(loader, "num_workers", 0) == 0
        ):
            raise ValueError(
                f"`dataloader` must read another {type(dataset).__name__} than the one that is trained on, or a copy "
                "of it in worker processes (`num_workers=1`): reading it disturbs training."
            )


def _has_index(loader: DataLoader) -> bool:
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        return False
    return loader.batch_sampler is not None or isinstance(undistributed(loader.sampler), BatchSampler)


def _makes_its_own_batches(loader: DataLoader) -> bool:
    methods = (getattr(type(loader), name) for name in ("__iter__", "_get_iterator"))
    return any(method.__module__.partition(".")[0] not in LOADER_PACKAGES for method in methods)


def _rebuild(loader: DataLoader, num_batches: int | None, max_samples: int | None, seed: int) -> ScoringData:
    indices, note = sampled_rows(loader, num_batches, seed)
    if max_samples is not None:
        indices = random_subset(indices, max_samples, seed)
    share = shard(indices)
    rows: int | None = batch_size(loader)
    sampler: Iterable[Any] = share
    if loader.batch_sampler is None:  # the data set is asked for a list of rows at a time
        sampler, rows = BatchSampler(share, batch_size(loader), drop_last=False), None
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
        # The user's generator must not be advanced. Workers end with the pass: they are not persistent.
        generator=torch.Generator().manual_seed(seed),
    )
    return ScoringData(batches, loader.dataset, () if note is None else (note,))


def shard(items: Sequence[Any]) -> Sequence[Any]:
    """Every world-size-th item, from this process's rank on: each once, none repeated to fill up."""
    rank, world_size = this_process()
    return items[rank::world_size]
