"""The data to score: a loader of this process's share, separate from the one that training uses."""

import math
from collections.abc import Iterable
from typing import Any

from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from lightning_leep.scoring.shared_rows import ScoringData, has_index, makes_its_own_batches, rebuilt

#: Hooks that Lightning runs on each training batch. Some mix rows, which scoring must not; others only normalise them.
BATCH_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")


def training_data(trainer: Any, max_samples: int | None) -> ScoringData:
    """Return this process's share of the data that the Trainer trains on, at most ``max_samples`` rows of all.

    If an epoch has fewer batches than the loader (``limit_train_batches``, ``overfit_batches``, ``fast_dev_run``), only
    as many rows are scored as these hold. ``ValueError`` if the rows cannot be read without disturbing training.
    """
    loader, obstacle = trainer.train_dataloader, ""
    name = type(loader).__name__
    if not isinstance(loader, DataLoader):
        obstacle = f"The training data must come from one torch DataLoader to be scored from a copy of it, got {name}."
    elif makes_its_own_batches(loader):
        obstacle = f"{name}, the training loader, makes its batches in its own way, which a copy cannot repeat."
    elif not has_index(loader):
        data = type(loader.dataset).__name__
        obstacle = f"The rows of {data}, the training data, cannot be read a second time by index (it is iterable, or "
        obstacle += "yields whole batches)."
    if obstacle:
        raise ValueError(f"{obstacle} Pass `dataloader=`, a loader of the labelled training data, to LEEPCallback.")
    try:
        length: float = len(loader)
    except TypeError:  # a batch sampler without a length
        length = math.inf
    num_batches = None
    if trainer.num_training_batches < length:
        num_batches = int(trainer.num_training_batches) * trainer.world_size
    return rebuilt(loader, num_batches, max_samples)


def check_not_trained_on(loader: Iterable[Any], trainer: Any) -> None:
    """Raise ``ValueError`` if a loader is one that training iterates."""
    if any(loader is trained for trained in tree_leaves(trainer.train_dataloader)):
        raise ValueError("`dataloader` must not be the training loader itself: reading it disturbs training.")


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
