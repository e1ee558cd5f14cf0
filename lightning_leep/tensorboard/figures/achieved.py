"""One figure of the accuracy that was predicted before training and of the accuracy that training achieved."""

from lightning_leep.forecast.mean_curve import MeanCurve
from lightning_leep.records.curve import AccuracyCurve, Reference
from lightning_leep.tensorboard.figures import style
from lightning_leep.tensorboard.figures.style import Axes, Figure, styled
from lightning_leep.tensorboard.words import percent, progress_sentence

#: Curves with more validations than this are drawn without markers.
MARKED_VALIDATIONS = 40


@styled
def predicted_vs_achieved_figure(
    curve: AccuracyCurve,
    predicted: float,
    predicted_label: str,
    interval: tuple[float, float] | None = None,
    reference: Reference | None = None,
    expected: MeanCurve | None = None,
) -> Figure:
    """Validation accuracy against the epochs trained, with the prediction as a line and its interval as a band.

    With an empty curve it shows the prediction alone. ``predicted_label`` says in a few words what the prediction is;
    ``reference`` is a curve or final accuracy to compare with, such as the same network trained from scratch;
    ``expected`` is the accuracy that is expected after each epoch, with its own band. The figure is not registered in
    pyplot. ``ValueError`` if ``predicted`` lies outside 0..1, or ``interval`` is not ``low <= high`` within 0..1.
    """
    if not 0 <= predicted <= 1:
        raise ValueError(f"`predicted` must lie in 0..1, got {predicted}.")
    if interval is not None and not 0 <= interval[0] <= interval[1] <= 1:
        raise ValueError(f"`interval` must be (low, high) with 0 <= low <= high <= 1, got {interval}.")
    subtitle = f"{progress_sentence(curve, predicted, interval)}\nPrediction: {predicted_label}."
    figure, axes = style.new_figure(3.0, "Predicted and achieved accuracy", subtitle)
    if interval is not None:
        axes.axhspan(*interval, color=style.PREDICTED_COLOR, alpha=0.15, lw=0)
    if expected is not None:
        axes.fill_between(expected.epochs, expected.low, expected.high, color=style.EXPECTED_COLOR, alpha=0.18, lw=0)
        axes.plot(expected.epochs, expected.mean, "-.", color=style.EXPECTED_COLOR, label="expected on the way")
    _draw_curve(axes, curve, "achieved", style.ACHIEVED_COLOR, "o-")
    spread = "" if interval is None else f" ({100 * interval[0]:.0f} to {100 * interval[1]:.0f}%)"
    axes.axhline(predicted, color=style.PREDICTED_COLOR, ls="--", label=f"predicted {percent(predicted)}{spread}")
    if isinstance(reference, AccuracyCurve):
        _draw_curve(axes, reference, "reference", style.REFERENCE_COLOR, "s:")
    elif reference is not None:
        axes.axhline(reference, color=style.REFERENCE_COLOR, ls=":", label=f"reference {percent(reference)}")
    last = max(axes.dataLim.x1, 1.0)
    axes.set_xlim(-0.03 * last, 1.03 * last)
    axes.locator_params(axis="x", integer=True, nbins=8)
    style.accuracy_axis(axes)
    axes.set(xlabel="epochs trained", ylabel="accuracy")
    style.legend(figure)
    return figure


def _draw_curve(axes: Axes, curve: AccuracyCurve, label: str, color: str, form: str) -> None:
    if len(curve):
        form = form if len(curve) <= MARKED_VALIDATIONS else form[1:]
        axes.plot(curve.epochs, curve.accuracy, form, color=color, label=f"{label}, best {percent(curve.best)}")
