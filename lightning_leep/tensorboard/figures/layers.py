"""Accuracy of a linear probe over the depth of the source."""

from os.path import commonprefix

from lightning_leep.layers.advice import Advice
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.tensorboard.figures import style
from lightning_leep.tensorboard.figures.style import Figure, styled
from lightning_leep.tensorboard.words import percent, shorten

#: Layers that are named at the axis: the type has room for so many.
MOST_NAMES = 18


@styled
def layers_figure(report: TransferabilityReport, advice: Advice | None = None) -> Figure:
    """Leave-one-out accuracy of the linear probe on each layer, with its standard error as a band.

    The layer whose output goes into the source's head is marked; a line shows the probe on all layers together. With
    advice, a cut stands before the layers that it recommends to train.

    The figure is not registered in pyplot. ``ValueError`` if no layer of the report has a probe accuracy.
    """
    layers = [layer for layer in report.layers if layer.probe_accuracy is not None]
    if not layers:
        raise ValueError("`report` must have layers with a probe accuracy, got none.")
    accuracy = [layer.probe_accuracy or 0.0 for layer in layers]
    error = [layer.probe_standard_error or 0.0 for layer in layers]
    together = report.multi_layer_probe_accuracy
    best = max(range(len(layers)), key=accuracy.__getitem__)
    subtitle = f"Leave-one-out on {report.num_samples:,} samples. Best: {shorten(layers[best].name, 30)} with "
    subtitle += percent(accuracy[best]) + ("." if together is None else f"; all layers together {percent(together)}.")
    choice = None if advice is None else advice.choice
    subtitle += "" if choice is None else f" Recommended: {shorten(choice.what, 40)}."
    figure, axes = style.new_figure(3.4, "Linear probe by layer", subtitle)
    places = range(len(layers))
    low, high = zip(*((a - e, a + e) for a, e in zip(accuracy, error, strict=True)), strict=True)
    axes.fill_between(places, low, high, color=style.ACHIEVED_COLOR, alpha=0.18, lw=0)
    axes.plot(places, accuracy, "o-", color=style.ACHIEVED_COLOR, label="each layer (± standard error)")
    if together is not None:
        axes.axhline(together, color=style.PREDICTED_COLOR, ls="--", label="all layers together")
    if choice is not None:
        cut = {layer.name: place for place, layer in enumerate(layers)} | {"all": 0, "head": len(layers)}
        start = cut.get(choice.trained_from, 0) - 0.5
        axes.axvspan(start, len(layers) - 0.4, color=style.REFERENCE_COLOR, alpha=0.12, lw=0)
        axes.axvline(start, color=style.REFERENCE_COLOR, ls=":", label="recommended cut")
    head = [place for place in places if layers[place].feeds_head]
    if head:
        values = [accuracy[place] for place in head]
        axes.plot(head, values, "D", ms=10, color=style.EXPECTED_COLOR, label="input of the head")
    style.percent_axis(axes.yaxis)
    step = -(-len(layers) // MOST_NAMES)
    shown = places[::step]
    names = _without_common_start([layer.name for layer in layers])
    axes.set_xticks(shown, [shorten(names[place], 16) for place in shown], rotation=90, fontsize=11)
    axes.set(ylabel="accuracy", xlim=(-0.6, len(layers) - 0.4))
    style.legend(figure)
    return figure


def _without_common_start(names: list[str]) -> list[str]:
    """The names without the modules that all dotted ones stand in."""
    common = commonprefix([name.split(".")[:-1] for name in names if "." in name])  # noqa: RUF071 (of lists)
    return [name.removeprefix("".join(f"{step}." for step in common)) for name in names]
