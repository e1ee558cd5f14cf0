"""A ranking that can be drawn and logged."""

from lightning_leep.records.ranking import Ranking


class SourceRanking(Ranking):
    """What :func:`~lightning_leep.rank_sources` returns."""
