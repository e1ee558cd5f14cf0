"""Names and values of everything that is drawn as a number or a line."""

from math import isfinite

from lightning_leep.forecast.running import RunningForecast
from lightning_leep.records.curve import AccuracyCurve, Reference, convergence_scalars, reference_accuracy
from lightning_leep.records.report import TransferabilityReport

#: Start of the tags of everything drawn over the epochs. What stands before the first "/" is a group in TensorBoard.
PREFIX = "leep/"


def report_tags(report: TransferabilityReport, prefix: str = PREFIX) -> dict[str, float]:
    """Every number of a report by its tag, and ``floor``, the LEEP of a source that says nothing.

    ``leave_one_out_floor`` is the same for leave-one-out LEEP. They form a group of their own, ``leep_report``: each is
    a single dot, and two dozen would bury the curves.
    """
    floors = {"floor": report.floor, "leave_one_out_floor": report.leave_one_out_floor}
    return {
        f"{_group(prefix, 'report')}{name}": value
        for name, value in {**report.scalars(), **floors}.items()
        if isfinite(value)
    }


def validation_tags(
    curve: AccuracyCurve,
    predicted: float | None = None,
    reference: Reference | None = None,
    prefix: str = PREFIX,
    interval: tuple[float, float] | None = None,
) -> dict[str, float]:
    """What is known after the last validation of a curve, by tag.

    Args:
        curve: Accuracy per validation so far.
        predicted: Accuracy that was predicted before training. It is repeated at each validation, to draw its line.
        reference: Curve or final accuracy to compare with.
        prefix: Start of every tag.
        interval: Lowest and highest accuracy that the prediction allows, repeated likewise.

    Returns:
        ``achieved_accuracy``, that of this validation, and ``best_accuracy``, the highest so far;
        ``predicted_accuracy``, ``predicted_accuracy_low`` and ``predicted_accuracy_high``; ``prediction_error`` and
        ``prediction_error_at_best``, predicted minus ``achieved_accuracy`` and minus ``best_accuracy`` (positive: too
        much was promised; it is the best of a run that is predicted); ``reference_accuracy`` and
        ``difference_to_reference``, achieved minus reference after as many epochs. What does not exist is left out;
        without a validation only the prediction is there.
    """
    values: dict[str, float] = {}
    if predicted is not None:
        values["predicted_accuracy"] = predicted
    if interval is not None:
        values["predicted_accuracy_low"], values["predicted_accuracy_high"] = interval
    if len(curve):
        values["achieved_accuracy"], values["best_accuracy"] = curve.final, curve.best
        if predicted is not None:
            values["prediction_error"] = predicted - curve.final
            values["prediction_error_at_best"] = predicted - curve.best
        level = None if reference is None else reference_accuracy(reference, curve.epochs[-1])
        if level is not None:
            values["reference_accuracy"] = level
            values["difference_to_reference"] = curve.final - level
    return {f"{prefix}{name}": value for name, value in values.items()}


def running_tags(running: RunningForecast, prefix: str = PREFIX) -> dict[str, float]:
    """The forecast of a run under way by tag: a group of its own, ``leep_running``, and ``leep/eta_epochs``.

    Args:
        running: The forecast after the validations so far.
        prefix: Start of every tag.

    Returns:
        ``running_forecast``, ``running_forecast_low`` and ``running_forecast_high`` of the best accuracy of the whole
        run, and ``eta_epochs``, the epochs to go until 99% of the final accuracy, if that can be said yet.
    """
    names = {"": running.value, "_low": running.low, "_high": running.high}
    values = {f"{_group(prefix, 'running')}running_forecast{name}": value for name, value in names.items()}
    return values if running.eta_epochs is None else {**values, f"{prefix}eta_epochs": running.eta_epochs}


def convergence_tags(
    curve: AccuracyCurve, predicted: float | None = None, reference: Reference | None = None, prefix: str = PREFIX
) -> dict[str, float]:
    """:func:`~lightning_leep.records.convergence_scalars` by tag, single dots as well: ``leep_convergence``.

    But for ``best_accuracy``, which :func:`validation_tags` tells already.
    """
    values = convergence_scalars(curve, predicted, reference)
    values.pop("best_accuracy", None)
    return {f"{_group(prefix, 'convergence')}{name}": value for name, value in values.items()}


def hparam_tags(prefix: str = PREFIX) -> list[str]:
    """Tags of the scalars that HPARAMS shows as columns to sort runs by, what matters most first.

    What a run achieved is its best accuracy, as in the history; ``achieved_accuracy`` is its last.
    """
    report, convergence = _group(prefix, "report"), _group(prefix, "convergence")
    return [
        # HPARAMS shows five metrics until more are ticked, `hp_metric` first of all where there is one.
        f"{prefix}predicted_accuracy",
        f"{prefix}best_accuracy",
        f"{prefix}prediction_error_at_best",
        f"{report}leep",
        f"{report}leave_one_out_leep",
        f"{prefix}achieved_accuracy",
        f"{convergence}area_under_curve",
        f"{convergence}epochs_to_90_percent",
        f"{convergence}epoch_prediction_reached",
        f"{convergence}epoch_reference_passed",
    ]


def _group(prefix: str, name: str) -> str:
    return f"{prefix.removesuffix('/')}_{name}/"
