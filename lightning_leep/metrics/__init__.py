"""Scores as torchmetrics metrics: streaming, distributed, exact."""

from lightning_leep.metrics.collection import transferability_metrics
from lightning_leep.metrics.combined import EEPScores, FeatureScores
from lightning_leep.metrics.eep_accuracy import EEPAccuracy
from lightning_leep.metrics.h_score import HScore
from lightning_leep.metrics.leep import LEEPMetric
from lightning_leep.metrics.linear_probe import LinearProbeAccuracy
from lightning_leep.metrics.log_me import LogME
from lightning_leep.metrics.nce import NegativeConditionalEntropy
from lightning_leep.metrics.nearest_neighbour import NearestNeighbourAccuracy
from lightning_leep.metrics.nleep import NLEEP

__all__ = [
    "NLEEP",
    "EEPAccuracy",
    "EEPScores",
    "FeatureScores",
    "HScore",
    "LEEPMetric",
    "LinearProbeAccuracy",
    "LogME",
    "NearestNeighbourAccuracy",
    "NegativeConditionalEntropy",
    "transferability_metrics",
]
