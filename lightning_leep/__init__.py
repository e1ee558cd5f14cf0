"""Predict how well a pre-trained model will transfer, before fine-tuning, and check afterwards how right that was."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_leep.callbacks import LayerTransfer, LEEPCallback, StopWhenHopeless
    from lightning_leep.layers import advise
    from lightning_leep.metrics import (
        NLEEP,
        EEPAccuracy,
        EEPScores,
        FeatureScores,
        HScore,
        LEEPMetric,
        LinearProbeAccuracy,
        LogME,
        NearestNeighbourAccuracy,
        NegativeConditionalEntropy,
        transferability_metrics,
    )
    from lightning_leep.ranking import Source, SourceRanking, rank_reports, rank_sources
    from lightning_leep.records import TransferabilityReport
    from lightning_leep.scoring import ScoringOptions, score, score_outputs

__version__ = "0.1.0"

__all__ = [
    "NLEEP",
    "EEPAccuracy",
    "EEPScores",
    "FeatureScores",
    "HScore",
    "LEEPCallback",
    "LEEPMetric",
    "LayerTransfer",
    "LinearProbeAccuracy",
    "LogME",
    "NearestNeighbourAccuracy",
    "NegativeConditionalEntropy",
    "ScoringOptions",
    "Source",
    "SourceRanking",
    "StopWhenHopeless",
    "TransferabilityReport",
    "__version__",
    "advise",
    "rank_reports",
    "rank_sources",
    "score",
    "score_outputs",
    "transferability_metrics",
]

#: Packages that public names are imported from, if not from ``metrics``.
_PACKAGES = {
    **dict.fromkeys(("LEEPCallback", "LayerTransfer", "StopWhenHopeless"), "callbacks"),
    **dict.fromkeys(("Source", "SourceRanking", "rank_reports", "rank_sources"), "ranking"),
    **dict.fromkeys(("ScoringOptions", "score", "score_outputs"), "scoring"),
    "TransferabilityReport": "records",
    "advise": "layers",
}

if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used: Lightning and torch take seconds, and a history needs neither."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_PACKAGES.get(name, 'metrics')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
