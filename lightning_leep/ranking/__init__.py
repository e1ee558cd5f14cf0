"""Which source? Comparisons of sources on the same target, and the baselines beside them."""

from lightning_leep.ranking.images import ImageFolder, ImageToTensor
from lightning_leep.ranking.order import rank_reports
from lightning_leep.ranking.rank import rank_sources
from lightning_leep.ranking.ranking import SourceRanking
from lightning_leep.ranking.source import Source

__all__ = ["ImageFolder", "ImageToTensor", "Source", "SourceRanking", "rank_reports", "rank_sources"]
