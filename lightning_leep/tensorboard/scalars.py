"""The numbers that are logged, by tag: the same tags in every logger and in ``trainer.callback_metrics``."""

from math import isfinite

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.running import RunningForecast
from lightning_leep.records.curve import AccuracyCurve, Reference, convergence_scalars, reference_accuracy
from lightning_leep.records.report import TransferabilityReport

#: Start of every tag. TensorBoard groups tags by what stands before the first "/".
PREFIX = "leep/"
#: The measures of convergence that are logged; the text panel tells the others.
CONVERGENCE = ("epochs_to_90_percent", "area_under_curve", "epoch_prediction_reached", "epoch_reference_passed")


def report_tags(report: TransferabilityReport, prefix: str = PREFIX) -> dict[str, float]:
    """The scores to compare source models by, by tag: ``leep``, ``leave_one_out_leep``, ``linear_probe_accuracy``.

    A score that is missing or not finite is left out. All other numbers of a report are in the text panel and in the
    record of the transfer.
    """
    values = (report.leep, report.leave_one_out_leep, report.linear_probe_accuracy)
    names = ("leep", "leave_one_out_leep", "linear_probe_accuracy")
    return {
        f"{prefix}{name}": value
        for name, value in zip(names, values, strict=True)
        if value is not None and isfinite(value)
    }


def forecast_tags(forecast: AccuracyForecast, prefix: str = PREFIX) -> dict[str, float]:
    """The accuracy forecast before training, by tag: ``predicted_accuracy``, ``predicted_low``, ``predicted_high``."""
    return {
        f"{prefix}predicted_accuracy": forecast.value,
        f"{prefix}predicted_low": forecast.low,
        f"{prefix}predicted_high": forecast.high,
    }


def validation_tags(
    curve: AccuracyCurve,
    forecast: AccuracyForecast | None = None,
    reference: Reference | None = None,
    running: RunningForecast | None = None,
    prefix: str = PREFIX,
) -> dict[str, float]:
    """What follows from the latest validation, by tag.

    Args:
        curve: Accuracy at each validation so far, at least one.
        forecast: The forecast from before training. It is logged again at each validation, to draw it as a line.
        reference: Curve or final accuracy to compare with.
        running: The forecast after this validation.
        prefix: Start of every tag.

    Returns:
        - ``best_accuracy``, the highest so far;
        - the tags of :func:`forecast_tags` and ``prediction_error``, ``best_accuracy`` minus ``predicted_accuracy``
          (negative: the forecast was too high);
        - ``reference_accuracy`` (after as many epochs) and ``difference_to_reference`` (achieved minus reference);
        - ``running_accuracy``, ``running_low``, ``running_high``, the expected best accuracy of the whole run and its
          interval, and ``eta_epochs``, the expected number of epochs until 99% of the final accuracy.

        What does not exist is left out, and so is ``achieved_accuracy``, which is logged before all this is known.
    """
    values = {"best_accuracy": curve.best}
    predicted = {}
    if forecast is not None:
        predicted = forecast_tags(forecast, prefix)
        values["prediction_error"] = curve.best - forecast.value
    level = None if reference is None else reference_accuracy(reference, curve.epochs[-1])
    if level is not None:
        values["reference_accuracy"] = level
        values["difference_to_reference"] = curve.final - level
    if running is not None:
        values |= {"running_accuracy": running.value, "running_low": running.low, "running_high": running.high}
        if running.eta_epochs is not None:
            values["eta_epochs"] = running.eta_epochs
    return predicted | {f"{prefix}{name}": value for name, value in values.items()}


def convergence_tags(
    curve: AccuracyCurve,
    forecast: AccuracyForecast | None = None,
    reference: Reference | None = None,
    prefix: str = PREFIX,
) -> dict[str, float]:
    """How fast a finished run was, by tag: :data:`CONVERGENCE`, as far as the run has these measures."""
    values = convergence_scalars(curve, None if forecast is None else forecast.value, reference)
    return {f"{prefix}{name}": values[name] for name in CONVERGENCE if name in values}


def hparam_tags(prefix: str = PREFIX) -> list[str]:
    """Tags of the scalars that HPARAMS shows as columns to sort runs by, the most important first.

    HPARAMS shows five metrics until more are ticked, ``hp_metric`` first if there is one.
    """
    names = ("predicted_accuracy", "best_accuracy", "prediction_error", "leep", "leave_one_out_leep")
    return [f"{prefix}{name}" for name in (*names, "achieved_accuracy", *CONVERGENCE)]
