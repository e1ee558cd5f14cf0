"""One finished transfer: what was known before it, how it was trained and what it achieved."""

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lightning_leep.forecast.curve import AccuracyCurve, Reference, convergence_scalars
from lightning_leep.report import TransferabilityReport

FORMAT = "lightning_leep.transfer"
SCHEMA_VERSION = 1


def library_versions() -> dict[str, str]:
    """Version of Python and of each installed library that a result may depend on."""
    versions = {"python": platform.python_version()}
    for name in ("lightning-leep", "torch", "torchmetrics", "pytorch-lightning"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, kw_only=True)
class TransferRecord:
    """What one transfer was predicted to do and what it did, frozen and JSON-serialisable.

    Attributes:
        report: Scores of the source on the target data, taken before training.
        curve: Accuracy on held-out target data at each validation.
        strategy: What was trainable: "head" (a new head on a frozen network), "all" (every parameter), "scratch" (every
            parameter, from random weights) or a word of the user's own. Only transfers of one strategy are compared.
        wall_seconds: Seconds of training before each validation; empty if they were not taken.
        reference: Accuracy of the same network trained from scratch on the same data: per epoch, or one final number.
        test_size: Labelled rows in each validation; None if unknown.
        optimizer: Class name of the optimizer, empty if unknown.
        learning_rate: Its first learning rate.
        dataset: Name of the target data, empty if unknown.
        model: Name of the source model, empty if unknown.
        versions: Library versions, see :func:`library_versions`.
        complete: Whether training took its course; False if it was ended because it seemed hopeless. What such a run
            achieved says too little of what it could have, and no forecast rests on it.
        created: Time of writing, ISO 8601 in UTC.

    Raises:
        ValueError: If ``strategy`` is empty, a size is not positive, ``created`` is no time, or ``wall_seconds`` is
            neither empty nor one finite, not decreasing number a validation.
    """

    report: TransferabilityReport
    curve: AccuracyCurve
    strategy: str
    wall_seconds: tuple[float, ...] = ()
    reference: Reference | None = None
    test_size: int | None = None
    optimizer: str = ""
    learning_rate: float | None = None
    dataset: str = ""
    model: str = ""
    complete: bool = True
    versions: Mapping[str, str] = field(default_factory=library_versions)
    created: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, str) or not self.strategy:
            raise ValueError(f"`strategy` must be a word such as 'head', 'all' or 'scratch', got {self.strategy!r}.")
        if self.test_size is not None and self.test_size < 1:
            raise ValueError(f"`test_size` must be at least 1 or None, got {self.test_size}.")
        seconds = tuple(map(float, self.wall_seconds))
        ordered = all(0 <= a <= b < math.inf for a, b in zip((0.0, *seconds), seconds, strict=False))
        if not ordered or len(seconds) not in (0, len(self.curve)):
            raise ValueError(
                "`wall_seconds` must be empty or hold one finite, not decreasing number for each of the "
                f"{len(self.curve)} validations, got {list(seconds)}."
            )
        datetime.fromisoformat(self.created)
        object.__setattr__(self, "wall_seconds", seconds)

    @property
    def achieved(self) -> float | None:
        """Accuracy that the run reached: the highest of its validations; None if there was none."""
        return self.curve.best if len(self.curve) else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python values, the parts nested; a number that is not finite becomes None."""
        names = (f.name for f in fields(self) if f.name not in ("report", "curve", "reference"))
        plain = {name: getattr(self, name) for name in names}
        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            **plain,
            "wall_seconds": list(self.wall_seconds),
            "learning_rate": _finite(self.learning_rate),
            "versions": dict(self.versions),
            "report": self.report.to_dict(),
            "curve": _curve_to_dict(self.curve),
            "reference": _curve_to_dict(self.reference)
            if isinstance(self.reference, AccuracyCurve)
            else self.reference,
        }

    def to_json(self) -> str:
        """The record as one JSON object."""
        return json.dumps(self.to_dict(), allow_nan=False, indent=1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TransferRecord":
        """Inverse of :meth:`to_dict`.

        A score that the report has learned since the record was written is None (NaN where a number is required).

        Raises:
            ValueError: If it is something else than a record, a newer version of one, or holds an invalid value.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise ValueError("not a record of a transfer")
        schema = values.get("schema_version")
        if not isinstance(schema, int) or schema > SCHEMA_VERSION:
            raise ValueError(f"written by a newer version (schema {schema}, this one reads up to {SCHEMA_VERSION})")
        rest = {name: value for name, value in values.items() if name not in ("format", "schema_version")}
        if unknown := sorted(set(rest) - {f.name for f in fields(cls)}):
            raise ValueError(f"written by a newer version (unknown fields {unknown})")
        try:
            rest["report"] = _report_from_dict(rest["report"])
            rest["curve"] = AccuracyCurve(**rest["curve"])
            if isinstance(rest.get("reference"), Mapping):
                rest["reference"] = AccuracyCurve(**rest["reference"])
            return cls(**rest)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"damaged ({type(error).__name__}: {error})") from error

    @classmethod
    def from_json(cls, text: str | bytes) -> "TransferRecord":
        """Inverse of :meth:`to_json`."""
        return cls.from_dict(json.loads(text))

    def to_flat_dict(self) -> dict[str, Any]:
        """One row of a table: plain scalars only, every record with the same columns but for what it never measured.

        The scores keep their names in the report (``seconds`` there becomes ``scoring_seconds``), ``achieved_accuracy``
        is :attr:`achieved`, and :func:`~lightning_leep.forecast.convergence_scalars` describes the curve.
        """
        report = {n: v for n, v in self.report.to_dict().items() if not isinstance(v, list | dict)}
        report["scoring_seconds"] = report.pop("seconds")
        return {
            "created": self.created,
            "dataset": self.dataset,
            "model": self.model,
            "strategy": self.strategy,
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "test_size": self.test_size,
            "complete": self.complete,
            "achieved_accuracy": self.achieved,
            "epochs": self.curve.epochs[-1] if len(self.curve) else None,
            "wall_seconds": self.wall_seconds[-1] if self.wall_seconds else None,
            **report,
            **convergence_scalars(self.curve, reference=self.reference),
            **{f"version_{name.replace('-', '_')}": value for name, value in self.versions.items()},
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _curve_to_dict(curve: AccuracyCurve) -> dict[str, list[float]]:
    return {"epochs": list(curve.epochs), "accuracy": list(curve.accuracy)}


def _report_from_dict(values: Mapping[str, Any]) -> TransferabilityReport:
    """A report that may lack the scores that reports have learned since; those become None, or NaN if required."""
    added = {
        f.name: math.nan
        for f in fields(TransferabilityReport)
        if f.name not in values and f.type is float and f.default is MISSING
    }
    report = TransferabilityReport.from_dict({**values, **added})
    for f in fields(report):
        value = getattr(report, f.name)
        if f.type in (float, int, float | None) and not isinstance(value, int | float | None):
            raise ValueError(f"damaged (`{f.name}` of the report is {value!r})")
    return report
