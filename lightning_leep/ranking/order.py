"""The order of sources, from their reports."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lightning_leep.forecast import forecast_accuracy
from lightning_leep.forecast.transfer_point import from_logit, logit
from lightning_leep.ranking.baselines import SourceHistory, history_shifts, source_histories
from lightning_leep.ranking.likelihood import likelihood_shifts
from lightning_leep.ranking.ranking import SourceRanking
from lightning_leep.ranking.ties import Comparison, Estimate, compare_with_best, forecast_estimate, score_estimate
from lightning_leep.records import History, TransferabilityReport, TransferRecord, load_history
from lightning_leep.records.accuracy_forecast import SUBJECTS
from lightning_leep.records.folder import Folder, open_folder
from lightning_leep.records.ranking import SCORES, RankedSource, SourceForecast, check_by
from lightning_leep.utils.checks import check_real, check_text


@dataclass(frozen=True)
class Wanted:
    """How sources are compared; arguments as in :func:`rank_reports`."""

    trainable: str | Sequence[str] = ("head", "all")
    by: str | None = None
    history: Iterable[TransferRecord] | Folder | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.trainable, str | Sequence):
            raise TypeError(f"`trainable` must be a word or a sequence of words, got {self.trainable!r}.")
        for word in self.parts:
            check_text("trainable", word, empty=False)
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"`trainable` must name at least one part, each once, got {self.trainable!r}.")
        if self.target is not None:
            check_text("target", self.target, empty=False)
        check_by(self.column, self.parts)
        if isinstance(self.history, str | os.PathLike):
            fs, root = open_folder(self.history)
            if not fs.exists(root):
                raise ValueError(f"`history` must be a folder of records, but there is no {os.fspath(self.history)!r}.")

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that may be trained."""
        return (self.trainable,) if isinstance(self.trainable, str) else tuple(self.trainable)

    @property
    def column(self) -> str:
        """What the sources are ordered by."""
        return self.parts[0] if self.by is None else self.by

    def records(self) -> History:
        """The earlier transfers."""
        if self.history is None:
            return History()
        if isinstance(self.history, str | os.PathLike):
            return load_history(self.history)
        return History(self.history)


@dataclass
class Candidates:
    """What is known of the sources, by name."""

    reports: dict[str, TransferabilityReport] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)  #: on the rows of all sources, each once
    accuracies: dict[str, float | None] = field(default_factory=dict)  #: on the sources' own tasks


def rank_reports(
    reports: Mapping[str, TransferabilityReport],
    *,
    trainable: str | Sequence[str] = ("head", "all"),
    by: str | None = None,
    history: Iterable[TransferRecord] | Folder | None = None,
    target: str | None = None,
    source_accuracy: Mapping[str, float] | None = None,
) -> SourceRanking:
    """Rank sources by reports that were made before, by :func:`~lightning_leep.score_outputs` for example.

    Args:
        reports: Report of each source on the same target data, by name.
        trainable: The parts that may be trained, such as "head" or "all": each gets a forecast.
        by: The column that orders the sources: one of ``trainable``, a score of
            :data:`~lightning_leep.records.ranking.SCORES` or a baseline of
            :data:`~lightning_leep.records.ranking.BASELINES`. None for the first of ``trainable``.
        history: Earlier transfers, or their folder.
        target: Name of the target data, as in the history.
        source_accuracy: Accuracy of sources on their own task, 0..1, by name.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there are no reports, ``by`` is unknown, or the reports are of other target classes.
    """
    wanted = Wanted(trainable, by, history, target)
    if not isinstance(reports, Mapping) or not reports:
        raise ValueError(f"`reports` must map at least one name to a report, got {reports!r:.100}.")
    for name, report in reports.items():
        check_text("name of a source", name, empty=False)
        if not isinstance(report, TransferabilityReport):
            raise TypeError(f"`reports[{name!r}]` must be a TransferabilityReport, got {type(report).__name__}.")
    known: dict[str, float | None] = {**(source_accuracy or {})}
    if unknown := sorted(set(known) - set(reports)):
        raise ValueError(f"`source_accuracy` names sources without a report: {unknown}.")
    for accuracy in (source_accuracy or {}).values():
        check_real("source_accuracy", accuracy, 0, 1, missing=False)
    return ranked(Candidates(reports=dict(reports), accuracies=known), wanted)


def ranked(candidates: Candidates, wanted: Wanted) -> SourceRanking:
    """Return the ranking; ``ValueError`` if the reports are of other target classes."""
    reports, history, notes = candidates.reports, wanted.records(), list(candidates.notes)
    classes = {name: report.num_target_classes for name, report in reports.items()}
    if len(set(classes.values())) > 1:
        raise ValueError(f"All reports must be of the same target classes, got {classes} of them.")
    if len({report.class_counts for report in reports.values()}) > 1:
        notes.append("The sources were scored on different rows, so their scores cannot be compared row by row.")
    part = wanted.column if wanted.column in wanted.parts else wanted.parts[0]
    histories = {
        part: source_histories(history, trainable=part, target_name=wanted.target or "") for part in wanted.parts
    }
    notes.extend(own_words([word for word in wanted.parts if word not in {record.trainable for record in history}]))
    if not any(name in histories[part] for name in reports):
        notes.append("No history of these sources on other targets.")
    forecasts, errors = {}, {}
    for word in wanted.parts:
        forecasts[word], errors[word] = _forecasts(reports, word, history, histories[word])
    sources, estimates = {}, {}
    for name, report in reports.items():
        past = {word: known[name] for word, known in histories.items() if name in known}
        sources[name] = RankedSource(
            name=name,
            forecasts={word: found[name] for word, found in forecasts.items() if name in found},
            scores={score: getattr(report, score, None) for score in SCORES},
            num_parameters=report.num_parameters,
            samples_per_second=report.samples_per_second,
            source_accuracy=candidates.accuracies.get(name),
            history_accuracy=past[part].mean_accuracy if part in past else None,
            history_records=past[part].num_records if part in past else 0,
        )
        estimates[name] = _estimate(report, sources[name], wanted.column, errors.get(wanted.column, {}))
    found = [_compared(sources[name], beside, wanted.column) for name, beside in compare_with_best(estimates).items()]
    failed = [RankedSource(name=name, error=error) for name, error in candidates.errors.items()]
    late = [RankedSource(name=name, notes=(reason,)) for name, reason in candidates.left_out.items()]
    return SourceRanking(
        sources=(*found, *late, *failed),
        by=wanted.column,
        trainable=wanted.parts,
        num_samples=next((report.num_samples for report in reports.values()), 0),
        target=wanted.target,
        notes=tuple(notes),
    )


def own_words(trainable: Iterable[str]) -> list[str]:
    """A sentence on each of these words that the library does not know and no record of a history has."""
    known = ", ".join(SUBJECTS)
    return [
        f"{word!r} is not one of {known}, and no earlier transfer has it: its forecast is that for all layers."
        for word in trainable
        if word not in SUBJECTS
    ]


def _forecasts(
    reports: Mapping[str, TransferabilityReport], part: str, history: History, histories: Mapping[str, SourceHistory]
) -> tuple[dict[str, SourceForecast], dict[str, float]]:
    """Forecasts of one part by name of the source, and the error of what the history of the sources adds to them.

    They are moved by what the other sources show on the same rows, then by what the history says of them. The
    interval still contains the one before the history: a source may do here what it never did on other targets. An end
    at 0 or 1 stays there: without features, nothing bounds the accuracy from above.
    """
    alone = {name: forecast_accuracy(report, history, trainable=part) for name, report in reports.items()}
    known = {name: forecast for name, forecast in alone.items() if forecast is not None}
    by_likelihood = likelihood_shifts(
        {name: forecast_estimate(reports[name], f.value, part) for name, f in known.items()}
    )
    ends: dict[str, dict[str, float]] = {}
    for name, forecast in known.items():
        n, shift = reports[name].num_samples, by_likelihood[name]
        plain = {"accuracy": forecast.value, "low": forecast.low, "high": forecast.high}
        ends[name] = {end: from_logit(logit(v, n) + shift, n) for end, v in plain.items()} if shift else plain
    by_history = history_shifts({name: values["accuracy"] for name, values in ends.items()}, histories)
    found = {}
    for name, values in ends.items():
        moved = {end: min(1.0, max(0.0, value + by_history[name][0])) for end, value in values.items()}
        low, high = min(*moved.values(), values["low"]), max(*moved.values(), values["high"])
        moved |= {"low": low if known[name].low else 0.0, "high": high if known[name].high < 1 else 1.0}
        found[name] = SourceForecast(**moved, confidence=known[name].coverage)
    return found, {name: error for name, (_, error) in by_history.items()}


def _estimate(report: TransferabilityReport, source: RankedSource, by: str, errors: Mapping[str, float]) -> Estimate:
    value = source.value(by)
    if by in source.forecasts:
        return forecast_estimate(report, source.forecasts[by].accuracy, by, other_error=errors[source.name])
    return score_estimate(report, by) if by in SCORES else Estimate(math.nan if value is None else value)


def _compared(source: RankedSource, beside: Comparison, by: str) -> RankedSource:
    notes = [] if beside.rank is not None else [f"It has no value in the column {by}, so it has no rank."]
    return replace(
        source,
        rank=beside.rank,
        tied_with_best=beside.tied_with_best,
        gap=beside.gap,
        gap_standard_error=beside.standard_error,
        more_samples=beside.more_samples,
        notes=(*notes, *filter(None, [beside.note])),
    )
