"""What is read from a Trainer while it fits."""

import math
from dataclasses import dataclass
from typing import Any

from lightning_leep.callbacks.fit.state import FitState
from lightning_leep.callbacks.source.class_info import attribute

#: How many nested data sets are searched; one that passes on unknown attributes may seem endless.
MAX_NESTING = 20


@dataclass(frozen=True, kw_only=True)
class TrainerFacts:
    """What a Trainer plans and uses, read once before the first step."""

    #: Epochs of this fit after which training ends at the latest; None if that is not known.
    max_epochs: float | None = None
    test_size: int | None = None  #: rows of each validation, of all processes; None if the loaders do not tell
    optimizer: str = ""  #: class of the first optimizer; empty without one
    learning_rate: float | None = None  #: the learning rate that it starts from
    target_name: str = ""  #: class of the datamodule, or of the innermost training data set; empty without one

    @classmethod
    def of(cls, trainer: Any, monitor: str | None, first_epoch: int = 0) -> "TrainerFacts":
        """Read the facts in ``on_train_start``; ``monitor`` may name one of several validation loaders."""
        end, (optimizer, rate) = _planned_epochs(trainer), _first_optimizer(trainer)
        return cls(
            max_epochs=None if end is None else end - first_epoch,
            test_size=_validation_rows(trainer, monitor),
            optimizer=optimizer,
            learning_rate=rate,
            target_name=_target_name(trainer),
        )


def _planned_epochs(trainer: Any) -> float | None:
    ends = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and not _counts_validations(trainer):
        ends.append(float(trainer.max_epochs))
    batches = trainer.num_training_batches
    if trainer.max_steps is not None and trainer.max_steps > 0 and 0 < batches < math.inf:
        # The last step of an epoch may accumulate fewer batches than the others.
        ends.append(trainer.max_steps / math.ceil(batches / trainer.accumulate_grad_batches))
    return min(ends, default=None)


def _validation_rows(trainer: Any, monitor: str | None) -> int | None:
    loaders, limits = trainer.val_dataloaders, trainer.num_val_batches
    if isinstance(loaders, list | tuple):
        number = (monitor or "").rpartition("/dataloader_idx_")[2] if len(loaders) > 1 else "0"
        if not number.isdigit() or int(number) >= len(loaders):
            return None
        loaders, limits = loaders[int(number)], limits[int(number) :]
    try:
        rows = len(loaders.dataset)
        if limits[0] < len(loaders):
            rows = min(rows, int(limits[0]) * loaders.batch_size * trainer.world_size)
    except (TypeError, AttributeError, IndexError):  # iterable, or with batches of no fixed size
        return None
    return rows or None


def _first_optimizer(trainer: Any) -> tuple[str, float | None]:
    optimizer = next(iter(trainer.optimizers), None)
    if optimizer is None or not optimizer.param_groups:  # Lightning has a stand-in for none
        return "", None
    group = optimizer.param_groups[0]
    rate = group.get("initial_lr", group.get("lr"))
    return type(optimizer).__name__, None if rate is None else float(rate)


def _target_name(trainer: Any) -> str:
    if trainer.datamodule is not None:
        return type(trainer.datamodule).__name__
    dataset = attribute(trainer.train_dataloader, "dataset")
    for _ in range(MAX_NESTING):
        inner = attribute(dataset, "dataset")
        if inner is None or inner is dataset:
            break
        dataset = inner
    return "" if dataset is None else type(dataset).__name__


def epoch_of_validation(trainer: Any, state: FitState) -> float:
    """Epochs of this fit before the validation that has just ended: whole ones, and the part of the current one.

    A loader of unknown length does not tell how long an epoch is. If it is validated within epochs, the validations are
    counted instead: 1, 2, 3, ...
    """
    if _counts_validations(trainer):
        return (state.curve.epochs[-1] if state.curve.epochs else 0.0) + 1.0
    epoch = float(trainer.current_epoch - state.first_epoch)
    if trainer.is_last_batch:
        return epoch + 1.0
    done = trainer.fit_loop.batch_idx + 1
    return epoch + done / trainer.num_training_batches


def _counts_validations(trainer: Any) -> bool:
    return math.isinf(trainer.num_training_batches) and trainer.val_check_batch != math.inf
