"""The forecasts of sources, best first."""

from lightning_leep.records.ranking import Ranking
from lightning_leep.tensorboard.figures import style
from lightning_leep.tensorboard.figures.style import Figure, styled
from lightning_leep.tensorboard.ranking import others
from lightning_leep.tensorboard.words import percent, shorten

COLORS = (style.ACHIEVED_COLOR, style.PREDICTED_COLOR, style.EXPECTED_COLOR)
MARKERS = ("o", "s", "D")


@styled
def ranking_figure(ranking: Ranking) -> Figure:
    """The forecast of each source with its interval, best first; those that cannot be told from the best are shaded.

    The figure is not registered in pyplot. ``ValueError`` if no source has a forecast.
    """
    sources = [source for source in ranking.sources if source.forecasts]
    if not sources:
        raise ValueError("`ranking` must hold a source with a forecast, got none.")
    best = sources[0]
    subtitle = f"Forecast of accuracy with interval, from {ranking.num_samples:,} rows. Best by {ranking.by}: "
    subtitle += shorten(best.name, 30)
    if ranking.by in best.forecasts:
        subtitle += f", {percent(best.forecasts[ranking.by].accuracy)}"
    subtitle += f"; {others(len(ranking.tied))} cannot be told from it." if ranking.tied else "."
    figure, axes = style.new_figure(1.4 + 0.32 * len(sources), "Which source?", subtitle)
    for place, source in enumerate(sources):
        if source.rank == 1 and ranking.tied:
            axes.axhspan(place - 0.5, place + 0.5, color=style.EXPECTED_COLOR, alpha=0.12, lw=0)
    for number, part in enumerate(ranking.trainable):
        shown = [(place, source.forecasts[part]) for place, source in enumerate(sources) if part in source.forecasts]
        if not shown:
            continue
        shift = 0.22 * (number - (len(ranking.trainable) - 1) / 2)
        values = [forecast.accuracy for _, forecast in shown]
        ends = [[f.accuracy - f.low for _, f in shown], [f.high - f.accuracy for _, f in shown]]
        places = [place + shift for place, _ in shown]
        marker, color = MARKERS[number % len(MARKERS)], COLORS[number % len(COLORS)]
        axes.errorbar(values, places, xerr=ends, label=part, fmt=marker, color=color, capsize=3, ms=7)
    axes.set_yticks(range(len(sources)), [shorten(source.name, 20) for source in sources])
    axes.set(ylim=(len(sources) - 0.5, -0.5), xlabel="accuracy")
    style.percent_axis(axes.xaxis)
    style.legend(figure, columns=3)
    return figure
