"""The accuracy that the user's module logs, read when it is new, and the place in training where it was measured."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_leep.records import AccuracyCurve
from lightning_leep.records.curve import Reference

#: How far above 1 rounding may take a mean of float32 accuracies.
ROUNDING = 1e-5


class MonitorReader:
    """Notices when a new value of the monitored metric arrives.

    A metric that validation logs is new after each validation, anything else (logged in training, or in the module's
    ``on_train_epoch_end``) once the epoch is over. Lightning keeps old values for ever: a value is new if it is another
    tensor than before.

    Args:
        monitor: Name of the metric.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.num_validations = 0
        self.found = False
        self._from_validation = False
        self._before: Any = None
        self._previous_epoch: Any = None

    def start_validation(self, metrics: Mapping[str, Any]) -> None:
        """Remember what was there before a validation."""
        self._before = metrics.get(self.monitor)

    def end_validation(self, metrics: Mapping[str, Any]) -> float | None:
        """The value that this validation logged, if it did."""
        self.num_validations += 1
        value = metrics.get(self.monitor)
        if value is None or value is self._before:
            return None
        self.found = self._from_validation = True
        return float(value)

    def logged_in_epoch(self, metrics: Mapping[str, Any]) -> float | None:
        """The value that this epoch logged outside validation, if it did; to be called after the module's own hooks."""
        value = metrics.get(self.monitor)
        if self._from_validation or value is None or value is self._previous_epoch:
            return None
        return float(value)

    def end_epoch(self, metrics: Mapping[str, Any]) -> float | None:
        """The same, which is old from then on."""
        value = self.logged_in_epoch(metrics)
        if value is not None:
            self.found, self._previous_epoch = True, metrics[self.monitor]
        return value


def missing_monitor_message(monitor: str, logged: Iterable[str]) -> str:
    """What is wrong when the metric was not logged, with the names of those that were."""
    return (
        f"`monitor={monitor!r}` was not logged, so nothing can be compared with the prediction. "
        f"Logged so far: {', '.join(map(repr, sorted(logged))) or 'nothing'}. "
        f"Call `self.log({monitor!r}, accuracy)` in `validation_step`, or name one of these as `monitor`."
    )


class EpochScale:
    """Places validations in training, in epochs: whole ones, and the part of the current one that is done.

    How long the epochs of a loader of unknown length are is known once the first is over. Until then each validation
    counts as an epoch, since an endless stream has no other scale; then those take their places within it.
    """

    def __init__(self) -> None:
        self._batches: list[int] = []  # trained at each validation that was only counted

    def place(self, trainer: Any, curve: AccuracyCurve) -> tuple[AccuracyCurve, float]:
        """The curve so far, on the scale that is known now, and the place of the validation that is over."""
        done = trainer.fit_loop.batch_idx + 1
        if trainer.is_last_batch:
            return self._settled(curve, done), float(trainer.current_epoch + 1)
        length = float(trainer.num_training_batches)
        if not math.isfinite(length):
            earlier = trainer.fit_loop.epoch_loop.total_batch_idx + 1 - done
            length = earlier / trainer.current_epoch if trainer.current_epoch else math.inf
        if math.isfinite(length):
            # An epoch may be longer than those before it, but no validation in the middle of it is its end.
            return self._settled(curve, length), trainer.current_epoch + done / max(length, done + 1)
        self._batches.append(done)
        return curve, (curve.epochs[-1] if len(curve) else 0.0) + 1.0

    def end_epoch(self, trainer: Any, curve: AccuracyCurve) -> AccuracyCurve:
        """The same between two epochs, or after the last, which need not have come to the end of its data."""
        if not (trainer.is_last_batch and trainer.current_epoch):
            return curve
        return self._settled(curve, (trainer.fit_loop.epoch_loop.total_batch_idx + 1) / trainer.current_epoch)

    def _settled(self, curve: AccuracyCurve, length: float) -> AccuracyCurve:
        if not self._batches:
            return curve
        before, batches = len(curve) - len(self._batches), self._batches
        self._batches = []
        return AccuracyCurve((*curve.epochs[:before], *(batch / length for batch in batches)), curve.accuracy)


def extended(curve: AccuracyCurve, epoch: float, accuracy: float) -> AccuracyCurve:
    """The curve with one more validation, instead of those from ``epoch`` on (training was resumed before them)."""
    if 1 < accuracy <= 1 + ROUNDING:
        accuracy = 1.0
    kept = sum(e < epoch for e in curve.epochs)
    return AccuracyCurve(curve.epochs[:kept], curve.accuracy[:kept]).append(epoch, accuracy)


def as_reference(reference: AccuracyCurve | Sequence[float] | float | None) -> Reference | None:
    """A curve as it is, a sequence as the accuracies after 1, 2, ... epochs, a number as one accuracy.

    Raises:
        TypeError: If it is something else.
        ValueError: If an accuracy lies outside 0..1, or there is none.
    """
    if isinstance(reference, str | bool) or not isinstance(reference, AccuracyCurve | Sequence | int | float | None):
        raise TypeError(
            f"`reference` must be an AccuracyCurve, a sequence of accuracies or a number, got {reference!r}."
        )
    if isinstance(reference, Sequence):
        reference = AccuracyCurve(tuple(range(1, len(reference) + 1)), tuple(reference))
    if isinstance(reference, AccuracyCurve):
        if not len(reference):
            raise ValueError("`reference` must hold at least one accuracy, got none.")
        return reference
    if reference is not None and not 0 <= reference <= 1:
        raise ValueError(f"`reference` must lie in 0..1, got {reference}.")
    return None if reference is None else float(reference)
