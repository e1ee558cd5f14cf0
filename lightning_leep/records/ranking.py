"""Sources of a transfer in the order in which to take them, as plain data in JSON."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from lightning_leep.records.folder import Folder, open_folder
from lightning_leep.records.ranking_text import ranking_text
from lightning_leep.utils.checks import MAX_SIZE, Ranges, check_fields, check_real, check_size, check_text, plain, texts

if TYPE_CHECKING:
    import pandas as pd

#: Scores of a report that a ranking shows. The larger, the better.
SCORES = (
    "leave_one_out_leep",
    "leep",
    "nce",
    "h_score",
    "log_me",
    "linear_probe_accuracy",
    "linear_probe_balanced_accuracy",
    "multi_layer_probe_accuracy",
    "nearest_neighbour_accuracy",
)
#: What else is known of a source. An order by one of these is a baseline that a score should beat.
BASELINES = ("num_parameters", "samples_per_second", "source_accuracy", "history_accuracy")
COUNTS: Ranges = dict.fromkeys(("num_parameters", "history_records", "more_samples"), (0, MAX_SIZE))


@dataclass(frozen=True, kw_only=True)
class SourceForecast:
    """Expected accuracy after training, with an interval that should hold the achieved one with this confidence."""

    accuracy: float
    low: float
    high: float
    confidence: float

    def __post_init__(self) -> None:
        check_fields(self, {f.name: (0, 1) for f in fields(self)}, missing=False)
        if not self.low <= self.accuracy <= self.high:
            raise ValueError(f"`accuracy` must lie between `low` and `high`, got {self}.")


@dataclass(frozen=True, kw_only=True)
class RankedSource:
    """One source in a ranking."""

    name: str  #: Name of the source
    #: 1 for the best. Sources that cannot be told from the best share its rank. None for a source that failed or was
    #: left out.
    rank: int | None = None
    tied_with_best: bool = False  #: Whether it is the best or cannot be told from it
    #: The forecast for each part that may be trained, such as "head" or "all".
    forecasts: Mapping[str, SourceForecast] = field(default_factory=dict)
    #: The scores ``SCORES``; None where the source has none.
    scores: Mapping[str, float | None] = field(default_factory=dict)
    num_parameters: int | None = None  #: Parameters of the source
    samples_per_second: float | None = None  #: Rows scored per second
    source_accuracy: float | None = None  #: Accuracy on the source's own task, where it was given
    history_accuracy: float | None = None  #: Mean accuracy that the same source achieved on other targets
    history_records: int = 0  #: Number of transfers in that mean
    gap: float | None = None  #: How much higher the best source is in the column that orders them
    #: Standard error of that difference, from the rows that both were scored on.
    gap_standard_error: float | None = None
    more_samples: int | None = None  #: Rows that would have to be added to tell it from the best
    error: str | None = None  #: Why it could not be scored
    notes: tuple[str, ...] = ()  #: What limits the numbers, one sentence each

    def __post_init__(self) -> None:
        check_text("name", self.name, empty=False)
        check_fields(self, COUNTS, missing=True)
        if unknown := sorted(set(self.scores) - set(SCORES)):
            raise ValueError(f"`scores` must be some of {', '.join(SCORES)}, got {unknown} as well.")
        for name, value in self.scores.items():
            if value is not None:
                check_real(name, value)
        object.__setattr__(self, "scores", {name: self.scores.get(name) for name in SCORES})
        texts("notes", self.notes)

    def value(self, by: str) -> float | None:
        """What the source is ordered by: a forecast, a score or a baseline; None if it has none."""
        if by in self.forecasts:
            return self.forecasts[by].accuracy
        value = getattr(self, by) if by in BASELINES else self.scores.get(by)
        return float(value) if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Sources of a transfer, best first. It is immutable and can be saved as JSON.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If there is no source, a name comes twice, or ``by`` is unknown.
    """

    sources: tuple[RankedSource, ...]  #: The sources in order; those that failed or were left out come last
    by: str  #: What they are ordered by: a part that will be trained (its forecast), a score, or a baseline
    trainable: tuple[str, ...]  #: Parts that may be trained, for which there are forecasts
    num_samples: int  #: Rows that the sources were scored on; of the first source if they differ
    target: str | None = None  #: Name of the target data
    notes: tuple[str, ...] = ()  #: What limits the order, one sentence each

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"`sources` must hold at least one source, each name once, got {names}.")
        check_by(self.by, self.trainable)
        check_size("num_samples", self.num_samples, 0)
        for text in (*self.trainable, *self.notes, self.target or ""):
            check_text("notes", text)

    @property
    def best(self) -> str | None:
        """Name of the best source; None if none could be scored."""
        return self.sources[0].name if self.sources[0].rank is not None else None

    @property
    def tied(self) -> tuple[str, ...]:
        """Names of the other sources that cannot be told from the best."""
        return tuple(source.name for source in self.sources[1:] if source.tied_with_best)

    def __getitem__(self, name: str) -> RankedSource:
        """Return a source by its name."""
        for source in self.sources:
            if source.name == name:
                return source
        raise KeyError(name)

    def brief(self) -> "Ranking":
        """Names, ranks, ties and forecasts alone: what the record of a transfer keeps."""
        kept = ("name", "rank", "tied_with_best", "forecasts")
        sources = tuple(RankedSource(**{name: getattr(source, name) for name in kept}) for source in self.sources)
        return Ranking(**{f.name: getattr(self, f.name) for f in fields(self)} | {"sources": sources, "notes": ()})

    def __str__(self) -> str:
        """The table, at most 80 columns wide, and what has to be said about it."""
        return ranking_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the ranking as plain Python values; a number that is not finite becomes None."""
        return {"kind": "ranking", **plain(self)}

    def to_json(self, path: Folder | None = None) -> str:
        """Return the ranking as a JSON object, and write it to a file, if a path or fsspec URL is given."""
        text = json.dumps(self.to_dict(), allow_nan=False, indent=1)
        if path is not None:
            fs, file = open_folder(path)
            fs.makedirs(os.path.dirname(file), exist_ok=True)
            fs.pipe_file(file, text.encode())
        return text

    @classmethod
    def from_dict(cls, values: Any) -> "Ranking":
        """Create a ranking from the output of :meth:`to_dict`; ``ValueError`` if it is not one or damaged."""
        if not isinstance(values, Mapping) or values.get("kind") != "ranking":
            raise ValueError(f"not a ranking: `kind` must be 'ranking', got {values!r:.100}.")
        try:
            rest = {name: value for name, value in values.items() if name != "kind"}
            sources = []
            for source in rest["sources"]:
                forecasts = {name: SourceForecast(**forecast) for name, forecast in source["forecasts"].items()}
                notes = tuple(source["notes"])
                sources.append(RankedSource(**{**source, "forecasts": forecasts, "notes": notes}))
            tuples = {"sources": tuple(sources), "trainable": tuple(rest["trainable"]), "notes": tuple(rest["notes"])}
            return cls(**{**rest, **tuples})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a damaged ranking ({type(error).__name__}: {error})") from error

    @classmethod
    def from_json(cls, path: Folder) -> "Ranking":
        """Read a ranking from a file that :meth:`to_json` wrote, a path or fsspec URL.

        ``OSError`` if the file cannot be read, ``ValueError`` if it is not a ranking.
        """
        fs, file = open_folder(path)
        try:
            return cls.from_dict(json.loads(fs.cat_file(file)))
        except ValueError as error:
            raise ValueError(f"Cannot read the ranking {os.fspath(path)}: {error}") from error

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a source, best first, with a column for each forecast and its ends, score and baseline."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError('A table needs pandas: `pip install "lightning-leep[tables]"`.') from error
        rows = []
        for source in self.to_dict()["sources"]:
            forecasts, scores = source.pop("forecasts"), source.pop("scores")
            ends = {
                f"{part}_{end}": forecasts.get(part, {}).get(end)
                for part in self.trainable
                for end in ("accuracy", "low", "high")
            }
            rows.append({"source": source.pop("name"), "rank": source.pop("rank"), **ends, **scores, **source})
        return pd.DataFrame(rows)


def check_by(by: str, trainable: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless sources can be ordered by this column."""
    allowed = (*trainable, *SCORES, *BASELINES)
    if by not in allowed:
        raise ValueError(f"`by` must be one of {', '.join(allowed)}, got {by!r}.")
