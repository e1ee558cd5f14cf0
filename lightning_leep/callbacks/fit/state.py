"""What a callback knows of one fit: one object, which is saved in checkpoints and restored as a whole."""

import sys
from bisect import bisect_left
from dataclasses import dataclass, field, fields
from typing import Any

from lightning_leep.forecast import AccuracyForecast
from lightning_leep.layers.trained_part import TrainedPart
from lightning_leep.records import AccuracyCurve, TransferabilityReport
from lightning_leep.records.association import Association
from lightning_leep.utils.checks import check_keys, check_real, check_size, plain

#: Fields that have their own plain form, if there is something.
PARTS: dict[str, Any] = {"report": TransferabilityReport, "forecast": AccuracyForecast, "association": Association}


@dataclass
class FitState:
    """What is known of one fit. A new fit starts with a new state; a resumed one goes on with the old state."""

    report: TransferabilityReport | None = None  #: scores of the source; None before the source has been scored
    forecast: AccuracyForecast | None = None  #: the accuracy forecast before training, if there is one
    association: Association | None = None  #: what the source classes stand for, if that is known
    curve: AccuracyCurve = field(default_factory=AccuracyCurve)  #: accuracy at each validation, in epochs of this fit
    seconds: tuple[float, ...] = ()  #: seconds of training before each validation
    first_epoch: int = 0  #: epochs that the Trainer had trained another module for before this fit
    recommended: str = ""  #: what was advised to train before training; empty for nothing
    trained: TrainedPart = field(default_factory=TrainedPart)  #: what came from the source, and which of it is trained

    def add(self, epoch: float, accuracy: float, seconds: float) -> None:
        """Add a validation. Those at the same or a later epoch are dropped: training was resumed before them."""
        kept = bisect_left(self.curve.epochs, epoch)
        if kept < len(self.curve):
            self.curve = AccuracyCurve(self.curve.epochs[:kept], self.curve.accuracy[:kept])
        self.curve = self.curve.append(epoch, accuracy)
        self.seconds = (*self.seconds[:kept], seconds)

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values; nothing of the source."""
        report = None if self.report is None else self.report.to_dict()
        values: dict[str, Any] = plain({**vars(self), "report": report})
        return values

    @classmethod
    def from_dict(cls, values: Any) -> "FitState":
        """Inverse of :meth:`to_dict`; ``TypeError`` or ``ValueError`` if a value is missing, unknown or impossible."""
        check_keys("the state of a fit", values, {f.name for f in fields(cls)})
        curve, seconds = values["curve"], _numbers("seconds", values["seconds"])
        check_keys("curve", curve, {"epochs", "accuracy"})
        check_size("first_epoch", values["first_epoch"], 0)
        parts: dict[str, Any] = {
            name: kind.from_dict(values[name]) for name, kind in PARTS.items() if values[name] is not None
        }
        state = cls(
            **parts,
            curve=AccuracyCurve(_numbers("epochs", curve["epochs"]), _numbers("accuracy", curve["accuracy"])),
            seconds=seconds,
            first_epoch=values["first_epoch"],
            recommended=values["recommended"],
            trained=TrainedPart.from_dict(values["trained"]),
        )
        layers = [] if state.report is None else [layer.name for layer in state.report.layers]
        if state.recommended not in ("", "head", "all", *layers):
            raise ValueError(f"`recommended` must name a layer of the report, got {state.recommended!r:.200}.")
        if len(seconds) != len(state.curve) or list(seconds) != sorted(seconds):
            raise ValueError(f"`seconds` must not fall, with one number for each validation, got {list(seconds)}.")
        return state


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list | tuple):
        raise TypeError(f"`{name}` must be a sequence of numbers, got {type(values).__name__}.")
    for value in values:
        check_real(name, value, 0, sys.float_info.max, missing=False)
    return tuple(float(value) for value in values)
