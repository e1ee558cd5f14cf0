"""This run among earlier transfers: accuracy against LEEP, and learning curves by level of LEEP."""

import math
from collections.abc import Sequence
from typing import Any

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.mean_curve import LEEPLevel, leep_levels, shown_transfers
from lightning_leep.records.curve import AccuracyCurve
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.records.transfer import TransferRecord
from lightning_leep.tensorboard.figures import style
from lightning_leep.tensorboard.figures.style import Axes, Figure, styled
from lightning_leep.tensorboard.words import percent

#: One for each level, the lowest first.
LEVEL_MARKERS = "ovs^D"
LEVEL_LINES = (":", "-.", "--", (0, (5, 1, 1, 1)), "-")


@styled
def history_figure(
    report: TransferabilityReport,
    history: Sequence[TransferRecord],
    forecast: AccuracyForecast | None = None,
    curve: AccuracyCurve | None = None,
) -> Figure:
    """Best accuracy of each earlier transfer against its LEEP, and this run among them.

    This run is drawn at its own LEEP, with the interval of its forecast and, after the first validation, its best
    accuracy. The earlier transfers are of one ``trainable``; see :func:`shown_transfers`. The figure is not registered
    in pyplot. ``ValueError`` if no transfer can be shown.
    """
    curve = curve if curve is not None else AccuracyCurve()
    levels = _levels(history)
    figure, axes = style.new_figure(3.2, "This run among earlier transfers", _subtitle(levels, forecast, curve))
    for level in levels:
        points = [(record.report.leep, record.curve.best) for record in level.records]
        marker, color = LEVEL_MARKERS[level.level - 1], _color(level, levels)
        axes.plot(*zip(*points, strict=True), marker, color=color, markersize=6, alpha=0.8)
    _draw_this_run(axes, report, forecast, curve)
    axes.set(xlabel="LEEP (0 is perfect)", ylabel="best accuracy")
    axes.locator_params(axis="x", nbins=6)  # a number such as -1.025 is wide
    style.accuracy_axis(axes)
    if axes.get_legend_handles_labels()[0]:
        style.legend(figure)
    return figure


@styled
def levels_figure(history: Sequence[TransferRecord], curve: AccuracyCurve | None = None) -> Figure:
    """Mean accuracy per epoch of earlier transfers, one line for each level of LEEP, and the curve of this run.

    The levels are those of the LEEP paper (:func:`~lightning_leep.forecast.leep_levels`); a short history has fewer.
    History, result and error are those of :func:`history_figure`.
    """
    curve = curve if curve is not None else AccuracyCurve()
    levels = _levels(history)
    subtitle = "Mean accuracy of earlier transfers by their LEEP; the bands show single runs."
    figure, axes = style.new_figure(3.2, "How fast earlier transfers were", subtitle)
    for level in levels:
        mean = level.accuracy
        if mean is None:
            continue
        color = _color(level, levels)
        label = f"{level.low:.2f} to {level.high:.2f} ({mean.num_curves} runs)".replace("-", "\N{MINUS SIGN}")
        axes.plot(mean.epochs, mean.mean, ls=LEVEL_LINES[level.level - 1], color=color, label=label)
        axes.fill_between(mean.epochs, mean.low, mean.high, color=color, alpha=0.1, lw=0)
    if len(curve):
        form = "-" if len(curve) > 1 else "*"
        axes.plot(curve.epochs, curve.accuracy, form, color=style.ACHIEVED_COLOR, lw=3.2, zorder=4, label="this run")
    axes.set(xlabel="epochs trained", ylabel="accuracy")
    axes.locator_params(axis="x", nbins=6)  # a number such as -1.025 is wide
    style.accuracy_axis(axes)
    if axes.lines:
        style.legend(figure)
    return figure


def _levels(history: Sequence[TransferRecord]) -> tuple[LEEPLevel, ...]:
    records = shown_transfers(history)
    if not records:
        raise ValueError("`history` must hold at least one complete transfer with a validation and a LEEP, got none.")
    return leep_levels(records, levels=None)


def _subtitle(levels: Sequence[LEEPLevel], forecast: AccuracyForecast | None, curve: AccuracyCurve) -> str:
    count = sum(len(level.records) for level in levels)
    text = f"Each mark is one of {count} transfers." if count > 1 else "The mark is the one earlier transfer."
    if forecast is None:
        return text
    expected = f"Predicted {percent(forecast.value)} ({percent(forecast.low)} to {percent(forecast.high)})"
    achieved = f", achieved {percent(curve.best)}" if len(curve) else ""
    return f"{text}\n{expected}{achieved}."


def _color(level: LEEPLevel, levels: Sequence[LEEPLevel]) -> Any:
    """A darker colour for a higher level; the light end of the map is left out because it is invisible on white."""
    from matplotlib import colormaps

    last = levels[-1].level
    return colormaps["plasma"](0.8 * (last - level.level) / max(last - 1, 1))


def _draw_this_run(
    axes: Axes, report: TransferabilityReport, forecast: AccuracyForecast | None, curve: AccuracyCurve
) -> None:
    if report.leep is None or not math.isfinite(report.leep):
        return
    if forecast is not None:
        ends = [[forecast.value - forecast.low], [forecast.high - forecast.value]]
        form: dict[str, Any] = {"fmt": "_", "ms": 14, "mew": 2.2, "capsize": 5, "zorder": 3}
        form |= {"color": style.PREDICTED_COLOR, "label": "this run, predicted"}
        axes.errorbar([report.leep], [forecast.value], yerr=ends, **form)
    if len(curve):
        form = {"ms": 15, "mec": "white", "zorder": 4, "color": style.ACHIEVED_COLOR}
        axes.plot([report.leep], [curve.best], "*", label="this run, achieved", **form)
