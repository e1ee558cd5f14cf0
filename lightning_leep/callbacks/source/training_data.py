"""The data to score: a loader of this process's share, separate from the one that training uses."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset

from lightning_leep.callbacks.source.sampled_rows import (
    SUBSET_SEED,
    batch_size,
    random_subset,
    sampled_rows,
    undistributed,
)
from lightning_leep.utils.distributed import this_process

#: Packages whose loaders make batches the way a DataLoader does.
LOADER_PACKAGES = {"torch", "torchdata"}
#: Hooks that Lightning runs on each training batch. Some mix rows, which scoring must not; others only normalise them.
BATCH_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")


@dataclass(frozen=True)
class ScoringData:
    """What one process scores.

    Attributes:
        batches: Its batches.
        dataset: The data set behind them, where it is known.
        notes: What the report says about the choice of rows.
    """

    batches: Iterable[Any]
    dataset: Any
    notes: tuple[str, ...] = ()


def training_data(trainer: Any, max_samples: int | None) -> ScoringData:
    """Return this process's share of the data that the trainer trains on.

    If an epoch has fewer batches than the loader (``limit_train_batches``, ``overfit_batches``, ``fast_dev_run``), only
    as many rows are scored as these batches hold: the same rows if they come in order, else random ones.

    Args:
        trainer: The trainer, in ``fit``.
        max_samples: Largest number of rows of all processes together; a random subset is taken.

    Raises:
        ValueError: If the rows cannot be read without disturbing training.
    """
    loader = trainer.train_dataloader
    if not isinstance(loader, DataLoader):
        raise ValueError(
            "The training data must come from one torch DataLoader to be scored from a copy of it, got "
            f"{type(loader).__name__}. Pass `dataloader=`, a loader of the labelled training data, to LEEPCallback."
        )
    if _makes_its_own_batches(loader):
        raise ValueError(
            f"{type(loader).__name__}, the training loader, makes its batches in its own way, which a copy of it would "
            "not. Pass `dataloader=`, another loader of the labelled training data, to LEEPCallback."
        )
    if not _has_index(loader):
        raise ValueError(
            f"The rows of {type(loader.dataset).__name__}, the training data, cannot be read a second time by index "
            "(it is iterable, or yields whole batches). Pass `dataloader=`, a loader of the labelled training data, to "
            "LEEPCallback."
        )
    try:
        length: float = len(loader)
    except TypeError:  # a batch sampler without a length
        length = math.inf
    num_batches = None
    if trainer.num_training_batches < length:
        num_batches = int(trainer.num_training_batches) * trainer.world_size
    return _rebuild(loader, num_batches, max_samples)


def given_data(loader: Iterable[Any], max_samples: int | None) -> ScoringData:
    """Return this process's share of the data that the user wants scored.

    Processes divide the rows of a loader over data with an index, and the batches of a sequence. Of any other iterable,
    each process scores all that it yields; with several processes, a note says so.

    Raises:
        ValueError: If ``max_samples`` is given and rows cannot be indexed.
    """
    if isinstance(loader, DataLoader) and _has_index(loader) and not _makes_its_own_batches(loader):
        return _rebuild(loader, None, max_samples)
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


def check_not_trained_on(loader: Iterable[Any], trainer: Any) -> None:
    """Raise ``ValueError`` if a loader is one that training iterates."""
    if any(loader is trained for trained in tree_leaves(trainer.train_dataloader)):
        raise ValueError("`dataloader` must not be the training loader itself: reading it disturbs training.")


def _has_index(loader: DataLoader) -> bool:
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        return False
    return loader.batch_sampler is not None or isinstance(undistributed(loader.sampler), BatchSampler)


def _makes_its_own_batches(loader: DataLoader) -> bool:
    methods = (getattr(type(loader), name) for name in ("__iter__", "_get_iterator"))
    return any(method.__module__.partition(".")[0] not in LOADER_PACKAGES for method in methods)


def _rebuild(loader: DataLoader, num_batches: int | None, max_samples: int | None) -> ScoringData:
    indices, note = sampled_rows(loader, num_batches)
    if max_samples is not None:
        indices = random_subset(indices, max_samples)
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
        # The user's generator must not be advanced. Workers are not persistent: they end with the pass.
        generator=torch.Generator().manual_seed(SUBSET_SEED),
    )
    return ScoringData(batches, loader.dataset, () if note is None else (note,))


def shard(items: Sequence[Any]) -> Sequence[Any]:
    """Return this process's items: every world-size-th one, each on one process only and none repeated."""
    rank, world_size = this_process()
    return items[rank::world_size]


def skipped_batch_hooks(trainer: Any, pl_module: Any) -> tuple[str, ...]:
    """Return a note for each hook of the user's that changes training batches but does not run on the scored ones."""
    notes = []
    for name in BATCH_HOOKS:
        # Lightning prefers the datamodule's hook to the module's.
        holder = next((h for h in (trainer.datamodule, pl_module) if _is_overridden(h, name)), None)
        if holder is not None:
            notes.append(
                f"{type(holder).__name__}.{name} does not run on the scored batches. If the source needs it "
                "(normalisation, not mix-up), pass `split_batch=`, a function from the batch to (inputs, target)."
            )
    return tuple(notes)


def _is_overridden(holder: Any, name: str) -> bool:
    hook = getattr(holder, name, None)
    module = getattr(hook, "__module__", None) or ""
    return hook is not None and module.partition(".")[0] not in ("pytorch_lightning", "lightning")
