"""A pass of a source model over labelled data, and the report that it ends in."""

from lightning_leep.scoring.options import ScoringOptions
from lightning_leep.scoring.run import score

__all__ = ["ScoringOptions", "score"]
