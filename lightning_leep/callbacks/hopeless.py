"""A callback that ends training once a wanted accuracy is out of reach."""

from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_leep.callbacks.fault_barrier import warn
from lightning_leep.utils.checks import check_real, check_size, check_text
from lightning_leep.utils.trainer_callback import TrainerCallback

#: What is logged is rounded to float32.
ROUNDING = 1e-6


class StopWhenHopeless(TrainerCallback):
    """Ends training when the running forecast excludes a wanted accuracy at several validations in a row.

    It reads what a :class:`~lightning_leep.LEEPCallback` logs in the same Trainer. List it after that callback;
    before it, it acts one validation late. Training ends on all processes when the first one decides so, and not before
    ``min_epochs`` and ``min_steps``. The record of the run then says that it is not complete, and no forecast learns
    from it.

    The running forecast extrapolates the curve. It allows for a slow start, and for a rise until the end as under a
    decaying learning rate, but not for a jump, as after a step of the learning rate, a long warm-up, or the unfreezing
    of layers. Set the Trainer's ``min_epochs`` to an epoch after the last jump. With several validations in an epoch,
    ask for more ``patience``.

    Args:
        target: Wanted accuracy in 0..1. A run that will not reach it is ended.
        patience: Number of validations in a row that must exclude it. One is not enough: one run in twenty exceeds the
            interval of its forecast.
        monitor: Tag of the upper end of the running forecast. Its first part is the LEEPCallback's name.

    Attributes:
        reason: Why this callback ended training, a sentence; empty if it has not.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``target`` does not lie in 0..1, ``patience`` is not positive, or ``monitor`` is empty.

    Example:
        >>> from lightning_leep import LEEPCallback
        >>> callbacks = [LEEPCallback(monitor="val_acc"), StopWhenHopeless(target=0.8)]
    """

    def __init__(self, target: float, patience: int = 4, monitor: str = "leep/running_high") -> None:
        check_real("target", target, 0, 1, missing=False)
        check_size("patience", patience)
        check_text("monitor", monitor, empty=False)
        super().__init__()
        self.target = target
        self.patience = patience
        self.monitor = monitor
        self._forget()

    def _forget(self) -> None:
        self.reason = ""
        self._excluded = 0
        self._seen: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start counting."""
        self._forget()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Look at the forecast after a validation."""
        if not trainer.sanity_checking:
            self._look(trainer, trainer.current_epoch + bool(trainer.is_last_batch))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Look at the forecast after an accuracy that was logged outside validation."""
        self._look(trainer, trainer.current_epoch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Warn if there was nothing to look at."""
        if self.monitor not in trainer.callback_metrics and trainer.is_global_zero:
            warn(
                f"StopWhenHopeless never saw `monitor={self.monitor!r}`, and could not end this run. The LEEPCallback "
                "of that name logs it, once it has scored its source and found its own `monitor`."
            )

    def _look(self, trainer: Any, epochs: int) -> None:
        high = trainer.callback_metrics.get(self.monitor)
        if high is not None and high is not self._seen:  # Lightning keeps old values
            self._seen = high
            self._excluded = self._excluded + 1 if float(high) < self.target - ROUNDING else 0
        hopeless = trainer.is_global_zero and self._excluded >= self.patience and _may_end(trainer, epochs)
        # Every process asks after every validation, whatever it has seen itself: none may wait for another.
        if trainer.strategy.reduce_boolean_decision(hopeless, all=False):
            self.reason = (
                f"After {epochs} epochs the best accuracy was expected to stay below {self.target:g}, the target of "
                f"StopWhenHopeless, at {self.patience} validations in a row."
            )
            trainer.should_stop = True
            rank_zero_info(f"StopWhenHopeless ends training. {self.reason}")


def _may_end(trainer: Any, epochs: int) -> bool:
    """Whether training may end now: it has done what it must, and is not ending anyway."""
    if trainer.should_stop or epochs < (trainer.min_epochs or 0) or trainer.global_step < (trainer.min_steps or 0):
        return False
    if 0 < (trainer.max_steps or 0) <= trainer.global_step:
        return False
    return not 0 < (trainer.max_epochs or 0) <= epochs


def why_cut_short(trainer: Any) -> str:
    """The reason of a :class:`StopWhenHopeless` that has ended training; empty if none has."""
    return next((c.reason for c in trainer.callbacks if isinstance(c, StopWhenHopeless) and c.reason), "")
