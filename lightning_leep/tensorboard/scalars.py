"""Names and values of everything that is drawn as a number or a line."""

from lightning_leep.forecast.curve import AccuracyCurve, Reference, convergence_scalars, reference_accuracy
from lightning_leep.report import TransferabilityReport

#: Start of every tag. TensorBoard shows what stands before the first "/" as one group, in alphabetical order.
PREFIX = "leep"

#: What the HPARAMS tab shows as columns to sort runs by.
HPARAM_METRICS = (
    "/predicted_accuracy",
    "/achieved_accuracy",
    "/prediction_error",
    "_report/leep",
    "_report/leave_one_out_leep",
    "_convergence/best_accuracy",
    "_convergence/area_under_curve",
    "_convergence/epochs_to_90_percent",
    "_convergence/epoch_prediction_reached",
    "_convergence/epoch_reference_passed",
)


def report_tags(report: TransferabilityReport, prefix: str = PREFIX) -> dict[str, float]:
    """Every number of a report by its tag, and ``floor``, the LEEP of a source that says nothing.

    They form a group of their own: each is a single dot, and two dozen of them would bury the curves.
    """
    return {f"{prefix}_report/{name}": value for name, value in {**report.scalars(), "floor": report.floor}.items()}


def validation_tags(
    curve: AccuracyCurve, predicted: float | None = None, reference: Reference | None = None, prefix: str = PREFIX
) -> dict[str, float]:
    """What is known after the last validation of a curve, by tag.

    Args:
        curve: Accuracy per validation so far.
        predicted: Accuracy that was predicted before training. It is repeated at each validation, to draw its line.
        reference: Curve or final accuracy to compare with.
        prefix: Group of the tags.

    Returns:
        ``achieved_accuracy``; ``predicted_accuracy`` and ``prediction_error`` (predicted minus achieved: positive means
        that too much was promised); ``reference_accuracy`` and ``difference_to_reference`` (achieved minus reference
        after as many epochs). What does not exist is left out; without a validation only the prediction is there.
    """
    values: dict[str, float] = {}
    if predicted is not None:
        values["predicted_accuracy"] = predicted
    if len(curve):
        values["achieved_accuracy"] = curve.final
        if predicted is not None:
            values["prediction_error"] = predicted - curve.final
        level = None if reference is None else reference_accuracy(reference, curve.epochs[-1])
        if level is not None:
            values["reference_accuracy"] = level
            values["difference_to_reference"] = curve.final - level
    return {f"{prefix}/{name}": value for name, value in values.items()}


def convergence_tags(
    curve: AccuracyCurve, predicted: float | None = None, reference: Reference | None = None, prefix: str = PREFIX
) -> dict[str, float]:
    """:func:`~lightning_leep.forecast.convergence_scalars` by tag, in a group of their own: each is a single dot."""
    values = convergence_scalars(curve, predicted, reference)
    return {f"{prefix}_convergence/{name}": value for name, value in values.items()}


def hparam_tags(prefix: str = PREFIX) -> list[str]:
    """Tags of :data:`HPARAM_METRICS`."""
    return [f"{prefix}{name}" for name in HPARAM_METRICS]
