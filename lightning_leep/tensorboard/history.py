"""This run among earlier transfers: its LEEP and accuracy beside theirs, and how fast each level of LEEP converged."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.curve import AccuracyCurve
from lightning_leep.forecast.levels import LEEPLevel, leep_levels
from lightning_leep.forecast.record import TransferRecord
from lightning_leep.report import TransferabilityReport
from lightning_leep.tensorboard.style import ACHIEVED_COLOR, PREDICTED_COLOR, new_figure, styled
from lightning_leep.tensorboard.words import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Levels of LEEP, as many as in the LEEP paper; fewer for histories with less than so many transfers a level.
LEVELS = 5
RECORDS_PER_LEVEL = 4
LEVEL_MARKERS = "ovs^D"
LEVEL_LINES = (":", "-.", "--", (0, (5, 1, 1, 1)), "-")


@styled
def history_figure(
    report: TransferabilityReport,
    history: Sequence[TransferRecord],
    forecast: AccuracyForecast | None = None,
    curve: AccuracyCurve | None = None,
) -> "Figure":
    """Two pictures of earlier transfers with this run among them.

    Above, the accuracy that each one achieved against its LEEP; this run stands at its own LEEP with the interval of
    its forecast and, once there is a validation, with what it achieved. Below, the average accuracy per epoch of each
    level of LEEP (:func:`~lightning_leep.forecast.leep_levels`) beside the curve of this run.

    Args:
        report: Scores of this run.
        history: Earlier transfers to compare with, of one strategy; those without a validation are left out.
        forecast: What was expected of this run.
        curve: Its validations so far.

    Returns:
        A matplotlib figure that pyplot does not know.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If no earlier transfer has a validation and a LEEP.
    """
    curve = curve if curve is not None else AccuracyCurve()
    records = [record for record in history if len(record.curve) and math.isfinite(record.report.leep)]
    if not records:
        raise ValueError("`history` must hold at least one transfer with a validation and a LEEP, got none.")
    count = min(LEVELS, max(2, len(records) // RECORDS_PER_LEVEL))
    levels = leep_levels(records, count)
    drawn = [level for level in levels if level.accuracy is not None and len(level.accuracy.epochs) > 1]
    figure = new_figure(6.4 if drawn else 3.4, "This run among earlier transfers", _subtitle(records, forecast, curve))
    axes = figure.subplots(2 if drawn else 1, 1, squeeze=False)[:, 0]
    colors = _level_colors(count)
    _draw_scatter(axes[0], levels, colors)
    _draw_this_run(axes[0], report, forecast, curve)
    axes[0].set(xlabel="LEEP (0 is perfect)", ylabel="best accuracy")
    if drawn:
        _draw_levels(axes[1], drawn, colors)
        if len(curve):
            form = "-" if len(curve) > 1 else "*"
            axes[1].plot(curve.epochs, curve.accuracy, form, color=ACHIEVED_COLOR, lw=3, zorder=4)
        axes[1].set(xlabel="epochs trained", ylabel="mean accuracy")
    for ax in axes:
        _percent_axis(ax)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2, frameon=False, columnspacing=0.9, handletextpad=0.4
    )
    return figure


def _subtitle(records: Sequence[TransferRecord], forecast: AccuracyForecast | None, curve: AccuracyCurve) -> str:
    number = "1 transfer" if len(records) == 1 else f"{len(records)} transfers"
    text = f"{number}, coloured by level of LEEP; stars and thick line: this run."
    if forecast is None:
        return text
    expected = f"Predicted {percent(forecast.value)} ({percent(forecast.low)} to {percent(forecast.high)})"
    achieved = f", achieved {percent(curve.best)}" if len(curve) else ""
    return f"{text}\n{expected}{achieved}."


def _level_colors(count: int) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    # The dark part of the map: its light end is invisible on white.
    return [to_hex(colormaps["plasma"](0.8 * i / max(count - 1, 1))) for i in range(count)][::-1]


def _draw_scatter(axes: "Axes", levels: Sequence[LEEPLevel], colors: list[str]) -> None:
    for level in levels:
        points = [(record.report.leep, record.curve.best) for record in level.records]
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            LEVEL_MARKERS[level.level - 1],
            color=colors[level.level - 1],
            markersize=6,
            alpha=0.8,
            label=f"LEEP {_signed(level.low)} to {_signed(level.high)}",
        )


def _draw_this_run(
    axes: "Axes", report: TransferabilityReport, forecast: AccuracyForecast | None, curve: AccuracyCurve
) -> None:
    if not math.isfinite(report.leep):
        return
    if forecast is not None:
        below, above = forecast.value - forecast.low, forecast.high - forecast.value
        axes.errorbar(
            [report.leep],
            [forecast.value],
            yerr=[[max(below, 0)], [max(above, 0)]],
            fmt="_",
            color=PREDICTED_COLOR,
            markersize=14,
            markeredgewidth=2.2,
            capsize=5,
            zorder=3,
            label="this run, predicted",
        )
    if len(curve):
        axes.plot(
            [report.leep],
            [curve.best],
            "*",
            color=ACHIEVED_COLOR,
            markersize=15,
            markeredgecolor="white",
            zorder=4,
            label="this run, achieved",
        )


def _draw_levels(axes: "Axes", levels: Sequence[LEEPLevel], colors: list[str]) -> None:
    for level in levels:
        mean = level.accuracy
        if mean is not None:
            axes.plot(mean.epochs, mean.mean, ls=LEVEL_LINES[level.level - 1], color=colors[level.level - 1])
            axes.fill_between(mean.epochs, mean.low, mean.high, color=colors[level.level - 1], alpha=0.1, lw=0)


def _percent_axis(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    low, high = axes.get_ylim()
    # At least 10 points high: equal runs must not look different.
    margin = max(0.0, 0.05 - (high - low) / 2)
    axes.set_ylim(max(-0.02, low - margin), min(1.02, high + margin))


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
