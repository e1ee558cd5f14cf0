"""One finished transfer: what was known before it, how it was trained, and what it achieved."""

import json
import math
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

from lightning_leep.records.accuracy_forecast import AccuracyForecast
from lightning_leep.records.association import Association
from lightning_leep.records.curve import AccuracyCurve, Reference, convergence_scalars
from lightning_leep.records.ranking import Ranking
from lightning_leep.records.report import ROW_FIELDS, TransferabilityReport, check_report
from lightning_leep.utils.checks import check_fields, check_keys, check_real, check_text, plain, real_numbers, texts

#: Epochs trained, and the best accuracy that was expected then, with its interval.
RunningPoint: TypeAlias = tuple[float, float, float, float]
FORMAT = "lightning_leep.transfer"
SCHEMA_VERSION = 1
#: Fields that have their own form in JSON.
PARTS: dict[str, Any] = {"forecast": AccuracyForecast, "association": Association, "ranking": Ranking}


@cache
def library_versions() -> dict[str, str]:
    """Return the version of Python and of each installed library that may affect a result."""
    versions = {"python": platform.python_version()}
    for name in ("lightning-leep", "torch", "torchmetrics", "pytorch-lightning", "lightning"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, kw_only=True)
class TransferRecord:
    """What one transfer was predicted to achieve and what it achieved. It is immutable and can be saved as JSON.

    Raises:
        TypeError: If a value, or a value in the report, has the wrong type.
        ValueError: If the report holds an impossible value, ``trainable`` is empty, a size is not positive,
            ``reference`` or ``running`` is outside 0..1, ``created`` is not a time, or ``wall_seconds`` is neither
            empty nor one finite number per validation, never decreasing.
    """

    report: TransferabilityReport  #: Scores of the source on the target data, computed before training
    curve: AccuracyCurve  #: Accuracy on held-out target data at each validation
    #: What was trained: "head" (a new head on a frozen network), "all" (every parameter), "part" (some parameters, or
    #: adapters), "gradual" (more and more parameters), "scratch" (every parameter, from random weights) or a word of
    #: your own. Only transfers with the same word are compared.
    trainable: str
    wall_seconds: tuple[float, ...] = ()  #: Seconds of training before each validation; empty if unknown
    #: Accuracy of the same network trained from scratch on the same data: a curve, or one final accuracy.
    reference: Reference | None = None
    test_size: int | None = None  #: Number of labelled rows in each validation; None if unknown
    optimizer: str = ""  #: Class name of the optimizer; empty if unknown
    learning_rate: float | None = None  #: Initial learning rate
    target_name: str = ""  #: Name of the target data; empty if unknown
    source_name: str = ""  #: Name of the source model; empty if unknown
    #: Whether training ran to its end. False if it was stopped because it seemed hopeless, or before it had seen all
    #: data once: such a run could have achieved more, and no forecast uses it.
    complete: bool = True
    #: With "part", the first layer that was trained, as ``report.layers`` names it; empty if unknown.
    trained_from: str = ""
    forecast: AccuracyForecast | None = None  #: The accuracy that was forecast before training; None if there was none
    #: Forecasts of the best accuracy during training: epochs trained, value, lower and upper end of each.
    running: tuple[RunningPoint, ...] = ()
    #: What the advice before training was: "head", the first layer to train, or "all"; empty if there was none.
    recommended: str = ""
    #: What the source classes stand for, P(y|z) with class names; None if unknown.
    association: Association | None = None
    #: The ranking that the source was chosen from, as :meth:`~lightning_leep.records.ranking.Ranking.brief` gives it;
    #: None if there was none.
    ranking: Ranking | None = None
    order_held: str = ""  #: Whether the order of that ranking held, in words; empty if unknown
    #: Library versions, see :func:`library_versions`.
    versions: Mapping[str, str] = field(default_factory=lambda: dict(library_versions()))
    #: Time of creation, ISO 8601 in UTC, so that sorting the texts sorts by time. A time in another zone is converted;
    #: a time without a zone is read as UTC.
    created: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        check_report(self.report)
        if not isinstance(self.curve, AccuracyCurve):
            raise TypeError(f"`curve` must be an AccuracyCurve, got {self.curve!r}.")
        check_text("trainable", self.trainable, empty=False)
        check_fields(self, {}, missing=True)
        if self.reference is not None and not isinstance(self.reference, AccuracyCurve):
            check_real("reference", self.reference, 0, 1, missing=False)
        if not isinstance(self.versions, Mapping):
            raise TypeError(f"`versions` must be a mapping of names to versions, got {self.versions!r}.")
        texts("versions", (*self.versions, *self.versions.values()))
        for name, kind in PARTS.items():
            if not isinstance(getattr(self, name), kind | None):
                raise TypeError(f"`{name}` must be {kind.__name__} or None, got {getattr(self, name)!r:.200}.")
        object.__setattr__(self, "ranking", None if self.ranking is None else self.ranking.brief())
        object.__setattr__(self, "running", _running(self.running))
        seconds = real_numbers("wall_seconds", self.wall_seconds)
        ordered = all(0 <= a <= b < math.inf for a, b in zip((0.0, *seconds), seconds, strict=False))
        if not ordered or len(seconds) not in (0, len(self.curve.epochs)):
            raise ValueError(
                f"`wall_seconds` must be empty or hold one finite number for each of {len(self.curve)} validations, "
                f"never decreasing, got {list(seconds)}."
            )
        object.__setattr__(self, "wall_seconds", seconds)
        object.__setattr__(self, "created", _utc(self.created))

    @property
    def achieved(self) -> float | None:
        """Accuracy that the run achieved: the highest of its validations; None without a validation."""
        return self.curve.best if len(self.curve) else None

    @property
    def rank(self) -> int | None:
        """Rank of the source in the ranking that it was chosen from, 1 for the best; None if unknown."""
        ranks = {} if self.ranking is None else {source.name: source.rank for source in self.ranking.sources}
        return ranks.get(self.source_name)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain Python values; a number that is not finite becomes None."""
        # Sources are compared before they are trained; a history would be large with every row.
        kept = {name: value for name, value in vars(self.report).items() if name not in (*ROW_FIELDS, "joint")}
        values: dict[str, Any] = plain({**vars(self), "report": kept})
        if self.ranking is not None:
            values["ranking"]["kind"] = "ranking"
        for source in () if self.ranking is None else values["ranking"]["sources"]:
            del source["scores"]  # and what else a brief ranking lacks
            for name in [n for n, value in source.items() if not value and n not in ("forecasts", "notes")]:
                del source[name]
        return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **values}

    def to_json(self) -> str:
        """Return the record as a JSON object."""
        return json.dumps(self.to_dict(), allow_nan=False, indent=1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TransferRecord":
        """Create a record from the output of :meth:`to_dict`; ``ValueError`` if it is not one, newer or damaged."""
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise ValueError("not a record of a transfer")
        schema = values.get("schema_version")
        if type(schema) is not int or not 1 <= schema <= SCHEMA_VERSION:
            raise ValueError(f"written by a newer version (schema {schema!r}, this one reads up to {SCHEMA_VERSION})")
        rest = {name: value for name, value in values.items() if name not in ("format", "schema_version")}
        if unknown := sorted(set(rest) - {f.name for f in fields(cls)}):
            raise ValueError(f"written by a newer version (unknown fields {unknown})")
        try:
            rest["report"] = TransferabilityReport.from_dict(rest["report"])
            rest["curve"] = _curve_from_dict(rest["curve"])
            for name, kind in PARTS.items():
                if rest.get(name) is not None:
                    rest[name] = kind.from_dict(rest[name])
            if isinstance(rest.get("reference"), Mapping):
                rest["reference"] = _curve_from_dict(rest["reference"])
            return cls(**rest)
        except KeyError as error:
            raise ValueError(f"damaged (no {error})") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"damaged ({error})") from error

    @classmethod
    def from_json(cls, text: str | bytes) -> "TransferRecord":
        """Create a record from the output of :meth:`to_json`."""
        return cls.from_dict(json.loads(text))

    def to_flat_dict(self) -> dict[str, Any]:
        """Return one row of a table: scalars only; columns of what was not measured are missing.

        The scores keep their names in the report, except that ``seconds`` becomes ``scoring_seconds``. The columns of
        the curve are those of :func:`~lightning_leep.records.convergence_scalars`.
        """
        report = {n: v for n, v in self.report.to_dict().items() if not isinstance(v, list | dict)}
        report["scoring_seconds"] = report.pop("seconds")
        what, how = ("created", "target_name", "source_name"), ("trainable", "optimizer", "learning_rate", "test_size")
        return {
            **{name: getattr(self, name) for name in (*what, *how, "complete")},
            "achieved_accuracy": self.achieved,
            "epochs": self.curve.epochs[-1] if len(self.curve) else None,
            "wall_seconds": self.wall_seconds[-1] if self.wall_seconds else None,
            **report,
            **convergence_scalars(self.curve, reference=self.reference),
            **{f"version_{name.replace('-', '_')}": value for name, value in self.versions.items()},
        }


def _curve_from_dict(values: Any) -> AccuracyCurve:
    check_keys("curve", values, {"epochs", "accuracy"})
    return AccuracyCurve(values["epochs"], values["accuracy"])


def _running(points: Any) -> tuple[RunningPoint, ...]:
    if not isinstance(points, list | tuple):
        raise TypeError(f"`running` must be a sequence of forecasts, got {points!r}.")
    checked = []
    for point in points:
        numbers = real_numbers("running", point)
        if len(numbers) != 4 or not (0 <= numbers[0] < math.inf and 0 <= numbers[2] <= numbers[1] <= numbers[3] <= 1):
            raise ValueError(f"`running` must hold epochs and an accuracy inside its interval, got {list(numbers)}.")
        checked.append(numbers)
    return tuple(checked)


def _utc(created: str) -> str:
    """Return the same time in UTC with microseconds, always in the same format."""
    try:
        time = datetime.fromisoformat(created)
        return (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        raise ValueError(f"`created` must be a time in ISO 8601 format, got {created!r}.") from None
