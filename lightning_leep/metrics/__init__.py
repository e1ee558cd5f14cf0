"""Scores as torchmetrics metrics: streaming, distributed, exact."""

from lightning_leep.metrics.eep_accuracy import EEPAccuracy
from lightning_leep.metrics.eep_scores import EEPScores
from lightning_leep.metrics.leep import LEEPMetric

__all__ = ["EEPAccuracy", "EEPScores", "LEEPMetric"]
