"""The accuracy that a transfer is expected to reach, as it was said before training."""

from dataclasses import dataclass, fields
from typing import Any

from lightning_leep.utils.checks import MAX_SIZE, check_fields, check_keys, plain, texts

RANGES = {**dict.fromkeys(("low", "value", "high", "coverage"), (0, 1)), "num_records": (0, MAX_SIZE)}

#: What may be trained, in the words of records, and as the subject of a sentence. Other words are the user's own.
SUBJECTS = {
    "head": "Training the head",
    "all": "Fine-tuning all layers",
    "part": "Fine-tuning part of the layers",
    "gradual": "Unfreezing layers step by step",
    "scratch": "Training from scratch",
}


@dataclass(frozen=True, kw_only=True)
class AccuracyForecast:
    """The accuracy that a transfer is expected to reach on held-out data, with an interval."""

    value: float  #: Expected accuracy in 0..1
    low: float  #: Lower end of the interval
    high: float  #: Upper end of the interval
    coverage: float  #: Share of such intervals that should contain the achieved accuracy
    trainable: str  #: What will be trained, see :class:`~lightning_leep.records.TransferRecord`
    basis: str  #: What the forecast is based on, in words
    num_records: int = 0  #: Number of earlier transfers, or of earlier runs of this one, behind it; 0 without a history
    out_of_range: bool = False  #: Whether the transfer lies outside the range of nearly all earlier transfers
    notes: tuple[str, ...] = ()  #: What limits the forecast, one sentence each

    def describe(self) -> str:
        """Return the forecast as one sentence, without its notes.

        Example:
            >>> interval = {"value": 0.7, "low": 0.6, "high": 0.8, "coverage": 0.9}
            >>> print(AccuracyForecast(**interval, trainable="head", basis="9 rows").describe())
            Training the head is expected to reach accuracy 0.700 (90% interval 0.600 to 0.800), from 9 rows.
        """
        subject = SUBJECTS.get(self.trainable, f"Training {self.trainable!r}")
        return (
            f"{subject} is expected to reach accuracy {self.value:.3f} "
            f"({100 * self.coverage:g}% interval {self.low:.3f} to {self.high:.3f}), from {self.basis}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        values: dict[str, Any] = plain(self)
        return values

    @classmethod
    def from_dict(cls, values: Any) -> "AccuracyForecast":
        """Inverse of :meth:`to_dict`; ``TypeError`` or ``ValueError`` if a value is missing, unknown or impossible."""
        check_keys("forecast", values, {f.name for f in fields(cls)})
        forecast = cls(**{**values, "notes": texts("notes", values["notes"])})
        check_fields(forecast, RANGES, missing=False)
        if not (forecast.low <= forecast.value <= forecast.high and 0 < forecast.coverage < 1):
            raise ValueError(f"`forecast` must be a value inside an interval, got {values!r:.200}.")
        return forecast
