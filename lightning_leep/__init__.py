"""How well a pre-trained model will transfer, before fine-tuning is paid for; how right that was, afterwards."""

from lightning_leep.callbacks import LEEPCallback, StopWhenHopeless
from lightning_leep.metrics import (
    NLEEP,
    EEPAccuracy,
    EEPScores,
    FeatureScores,
    HScore,
    LEEPMetric,
    LinearProbeAccuracy,
    LogME,
    NegativeConditionalEntropy,
    transferability_metrics,
)
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.scoring.options import ScoringOptions
from lightning_leep.scoring.run import score

__version__ = "0.1.0"

__all__ = [
    "NLEEP",
    "EEPAccuracy",
    "EEPScores",
    "FeatureScores",
    "HScore",
    "LEEPCallback",
    "LEEPMetric",
    "LinearProbeAccuracy",
    "LogME",
    "NegativeConditionalEntropy",
    "ScoringOptions",
    "StopWhenHopeless",
    "TransferabilityReport",
    "__version__",
    "score",
    "transferability_metrics",
]
