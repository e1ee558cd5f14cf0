"""The accuracy that the user's module logs, read when it is new."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torchmetrics import Metric

from lightning_leep.records import AccuracyCurve, TransferabilityReport
from lightning_leep.records.curve import Reference
from lightning_leep.utils.checks import check_real

#: How far above 1 rounding may take a mean of float32 accuracies.
ROUNDING = 1e-5


class MonitorReader:
    """Notices when a new value of the monitored metric arrives.

    If validation logs the metric, it is new after each validation. Anything else (logged in training, or in the
    module's ``on_train_epoch_end``) is new once the epoch is over. Lightning keeps old values: a value is new if it is
    another tensor than before. A value outside 0..1 raises ``ValueError``. Without a ``monitor`` nothing is ever new.
    """

    def __init__(self, monitor: str | None) -> None:
        self.monitor = monitor
        self.num_validations = 0
        self.found = False
        self._from_validation = False
        self._before_epoch: Any = None
        self._before_validation: Any = None

    def before_epoch(self, metrics: Mapping[Any, Any]) -> None:
        """Remember the value from before an epoch."""
        self._before_epoch = metrics.get(self.monitor)

    def before_validation(self, metrics: Mapping[Any, Any]) -> None:
        """Remember the value from before a validation."""
        self._before_validation = metrics.get(self.monitor)

    def after_validation(self, metrics: Mapping[Any, Any]) -> float | None:
        """The accuracy that this validation logged, if it did."""
        self.num_validations += 1
        value = self._new(metrics, self._before_validation)
        self._from_validation |= value is not None
        return value

    def after_epoch(self, metrics: Mapping[Any, Any]) -> float | None:
        """The accuracy that this epoch logged outside validation, if it did; call it after the module's own hooks."""
        return None if self._from_validation else self._new(metrics, self._before_epoch)

    def _new(self, metrics: Mapping[Any, Any], old: Any) -> float | None:
        value = metrics.get(self.monitor)
        if value is None or value is old:
            return None
        self.found = True
        accuracy = float(value)
        if not 0 <= accuracy <= 1 + ROUNDING:
            raise ValueError(f"The accuracy must lie in 0..1 (divide a percentage by 100), got {accuracy:g}.")
        return min(accuracy, 1.0)

    def explain_missing(self, logged: Iterable[str], validates: bool) -> str:
        """Why nothing can be compared, and what to do, given what was logged and whether the Trainer ``validates``."""
        if validates and not self.num_validations:
            return (
                f"No validation ran, so `monitor={self.monitor!r}` has no value to compare with the prediction. "
                "Train for longer, or validate more often with `val_check_interval`."
            )
        return (
            f"`monitor={self.monitor!r}` was not logged, so nothing can be compared with the prediction. "
            f"Logged so far: {', '.join(map(repr, sorted(logged))) or 'nothing'}. "
            f"Call `self.log({self.monitor!r}, accuracy)` in `validation_step`, or name one of these as `monitor`."
        )


def explain_metric(trainer: Any, monitor: str | None, report: TransferabilityReport) -> str:
    """What to know of a monitored torchmetrics metric that is not the share of right rows; else empty.

    The forecast is of that share. Lightning knows which object a value comes from while it validates; a plain tensor
    says nothing.
    """
    # The results of the running loop are the one place that knows it; without them nothing is said.
    results = getattr(trainer, "_results", None) or {}
    metrics = [result.value for result in results.values() if getattr(result.meta, "name", None) == monitor]
    metric = next((value for value in metrics if isinstance(value, Metric)), None)
    if metric is None:
        return ""
    kind, average = type(metric).__name__, getattr(metric, "average", None)
    if not kind.endswith(("Accuracy", "Recall")):
        return f"`monitor={monitor!r}` is a {kind}, but the forecast is for an accuracy: the two cannot be compared."
    if average != "macro" or len({count for count in report.class_counts if count}) < 2:
        return ""
    balanced = report.linear_probe_balanced_accuracy
    hint = "" if balanced is None else f" The probe's is {balanced:.3f}."
    return (
        f"`monitor={monitor!r}` is a macro average, the mean of the accuracies of classes of different size. "
        f"The forecast is for the share of rows that are right: compare it with `average='micro'`.{hint}"
    )


def as_reference(reference: AccuracyCurve | Sequence[float] | float | None) -> Reference | None:
    """A curve as it is; a sequence as the accuracies after 1, 2, ... epochs; a number as one accuracy."""
    if isinstance(reference, str | bool) or not isinstance(reference, AccuracyCurve | Sequence | int | float | None):
        raise TypeError(
            f"`reference` must be an AccuracyCurve, a sequence of accuracies or a number, got {reference!r}."
        )
    if isinstance(reference, int | float):
        check_real("reference", reference, 0, 1, missing=False)
        return float(reference)
    if isinstance(reference, Sequence):
        reference = AccuracyCurve(tuple(range(1, len(reference) + 1)), tuple(reference))
    if reference is not None and not len(reference):
        raise ValueError("`reference` must hold at least one accuracy, got none.")
    return reference
