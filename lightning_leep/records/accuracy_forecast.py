"""The accuracy that a transfer is expected to reach, as it was said before training."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from lightning_leep.utils.checks import check_keys, check_real, check_size, check_text

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
    """The accuracy that a transfer is expected to reach on held-out data, with an interval.

    Attributes:
        value: Expected accuracy in 0..1.
        low: Lower end of the interval.
        high: Upper end of the interval.
        coverage: Share of such intervals that should contain the achieved accuracy.
        trainable: What will be trained, see :class:`~lightning_leep.records.TransferRecord`.
        basis: What the forecast is based on, in words.
        num_records: Number of earlier transfers, or of earlier runs of this one, behind it; 0 without a history.
        out_of_range: Whether the transfer lies outside the range of nearly all earlier transfers.
        notes: What limits the forecast, one sentence each.
    """

    value: float
    low: float
    high: float
    coverage: float
    trainable: str
    basis: str
    num_records: int = 0
    out_of_range: bool = False
    notes: tuple[str, ...] = ()

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
        return {**asdict(self), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, values: Any) -> "AccuracyForecast":
        """Inverse of :meth:`to_dict`.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If something is missing, unknown or impossible.
        """
        check_keys("forecast", values, {f.name for f in fields(cls)})
        for name in ("low", "value", "high", "coverage"):
            check_real(name, values[name], 0, 1, missing=False)
        if not (values["low"] <= values["value"] <= values["high"] and 0 < values["coverage"] < 1):
            raise ValueError(f"`forecast` must be a value inside an interval, got {values!r:.200}.")
        notes = values["notes"]
        if not isinstance(notes, list | tuple) or not isinstance(values["out_of_range"], bool):
            raise TypeError(f"`forecast` must hold notes and say whether it is out of range, got {values!r:.200}.")
        for text in (values["trainable"], values["basis"], *notes):
            check_text("forecast", text)
        check_size("num_records", values["num_records"], 0)
        return cls(**{**values, "notes": tuple(notes)})
