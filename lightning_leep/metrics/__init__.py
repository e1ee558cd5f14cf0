"""Scores as torchmetrics metrics: streaming, distributed, exact."""

from lightning_leep.metrics.collection import transferability_metrics
from lightning_leep.metrics.feature_metric import HScore, LogME
from lightning_leep.metrics.leep import EEPAccuracy, EEPScores, LEEPMetric
from lightning_leep.metrics.linear_probe import FeatureScores, LinearProbeAccuracy
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
