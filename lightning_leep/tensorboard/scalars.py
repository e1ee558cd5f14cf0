"""The numbers that are logged, by tag: the same tags in every logger and in ``trainer.callback_metrics``.

All other numbers are in the tab "Transfer" of TensorBoard, in the text panel and in the record of the transfer.
"""

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.running import RunningForecast
from lightning_leep.records.curve import AccuracyCurve, Reference, reference_accuracy


def forecast_tags(forecast: AccuracyForecast, prefix: str = "leep/") -> dict[str, float]:
    """The accuracy forecast before training, by tag: ``predicted_accuracy``, ``predicted_low``, ``predicted_high``."""
    values = {"accuracy": forecast.value, "low": forecast.low, "high": forecast.high}
    return {f"{prefix}predicted_{name}": value for name, value in values.items()}


def validation_tags(
    curve: AccuracyCurve,
    forecast: AccuracyForecast | None = None,
    reference: Reference | None = None,
    running: RunningForecast | None = None,
    prefix: str = "leep/",
) -> dict[str, float]:
    """What follows from the latest validation, by tag; the curve has at least one.

    - ``best_accuracy``, the highest so far;
    - the tags of :func:`forecast_tags`, again, to draw them as lines, and ``prediction_error``, ``best_accuracy`` minus
      ``predicted_accuracy`` (negative: the forecast was too high);
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
