"""A ranking that can be drawn and logged."""

from typing import TYPE_CHECKING, Any

from lightning_leep.records.ranking import Ranking
from lightning_leep.tensorboard.figures.ranking import ranking_figure
from lightning_leep.tensorboard.ranking import ranking_markdown
from lightning_leep.tensorboard.writer import log_figure, log_text, takes_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SourceRanking(Ranking):
    """What :func:`~lightning_leep.rank_sources` returns: a :class:`~lightning_leep.records.ranking.Ranking` to look at.

    Example:
        ``SourceRanking.from_json("ranking.json").figure().savefig("ranking.png")``
    """

    def figure(self) -> "Figure":
        """The forecast of each source with its interval, best first.

        Raises:
            ImportError: If matplotlib is missing.
            ValueError: If no source has a forecast.
        """
        return ranking_figure(self)

    def log_to(self, logger: Any, step: int = 0) -> None:
        """Log the table as text and the figure, as far as a Lightning logger takes them; else the values as numbers.

        Args:
            logger: A logger of Lightning, such as a ``TensorBoardLogger``.
            step: The step under which they are logged.
        """
        log_text(logger, "ranking/table", ranking_markdown(self), step)
        if takes_figures(logger):
            if any(source.forecasts for source in self.sources):
                log_figure(logger, "ranking/forecasts", self.figure(), step)
        else:
            values = {source.name: source.value(self.by) for source in self.sources}
            logger.log_metrics({f"ranking/{name}": value for name, value in values.items() if value is not None}, step)
        logger.save()
