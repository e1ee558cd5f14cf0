"""A pass of a source model over labelled data, and the report that it ends in."""

from lightning_leep.scoring.options import ScoringOptions
from lightning_leep.scoring.run import score, score_outputs

__all__ = ["ScoringOptions", "score", "score_outputs"]
