"""A ranking in Markdown."""

from collections.abc import Iterable, Sequence
from itertools import combinations

from lightning_leep.records.ranking import RankedSource, Ranking
from lightning_leep.records.ranking_text import NAMES, ranking_columns, ranking_remarks
from lightning_leep.records.transfer import TransferRecord
from lightning_leep.tensorboard.words import code, escaped, percent


def ranking_markdown(ranking: Ranking, source_name: str = "", outcome: str = "") -> str:
    """The table of a ranking in Markdown, the place of one of its sources, in bold, and what has to be said.

    ``outcome`` says how the order turned out (:func:`outcome_of`).
    """
    columns = ranking_columns(ranking)
    lines = [f"| {' | '.join(escaped(title) for title, _ in columns)} |", "|---" * len(columns) + "|"]
    for place, source in enumerate(ranking.sources):
        bold = "**" if source.name == source_name else ""
        row = [escaped(cells[place]) for _, cells in columns]
        row[NAMES] = code(source.name)
        lines.append(f"| {' | '.join(f'{bold}{cell}{bold}' if cell else '' for cell in row)} |")
    target = "" if ranking.target is None else f" for {code(ranking.target)}"
    remarks = "\n".join(f"- {escaped(remark)}" for remark in ranking_remarks(ranking))
    table = "\n".join(lines)
    parts = [f"## Which source{target}?", escaped(place_of(ranking, source_name)), escaped(outcome), table, remarks]
    return "\n\n".join(part for part in parts if part)


def place_of(ranking: Ranking, source_name: str) -> str:
    """The place of a source as a sentence; empty without a name."""
    names = [source.name for source in ranking.sources]
    if not source_name:
        return ""
    if source_name not in names:
        return f"`{source_name}` is not in this ranking: `source_name` must be one of its names."
    source, count = ranking[source_name], sum(other.rank is not None for other in ranking.sources)
    if source.rank is None:
        return f"`{source_name}` was not ranked."
    text = f"`{source_name}` has rank {source.rank} of {count}"
    if source.rank == 1:
        return f"{text}; {others(len(ranking.tied))} cannot be told from the best." if ranking.tied else f"{text}."
    is_accuracy = ranking.by in ranking.trainable and source.gap is not None
    gap = f" is expected to reach {100 * (source.gap or 0.0):.1f} points more" if is_accuracy else " is better"
    return f"{text}: `{ranking.best}`{gap}."


def outcome_of(record: TransferRecord, others: Iterable[TransferRecord]) -> str:
    """Sentences on whether the order of the record's ranking held; empty without a ranking or an accuracy.

    The achieved accuracy is compared with the forecasts of its neighbours in the ranking, and with what other sources
    achieved in complete transfers that trained the same part for the same target.
    """
    if record.ranking is None or record.achieved is None or not record.complete:
        return ""
    placed = [source for source in record.ranking.sources if source.rank is not None]
    achieved = {record.source_name: record.achieved}
    for other in others:
        is_same = other.target_name == record.target_name and other.trainable == record.trainable and other.complete
        if is_same and other.achieved is not None:
            achieved[other.source_name] = max(other.achieved, achieved.get(other.source_name, 0.0))
    text = _among_forecasts(record, placed)
    trained = [source for source in placed if source.name in achieved]
    if len(trained) < 2:
        return f"{text} No other source of this ranking has been trained for this target yet.".lstrip()
    reached = ", ".join(f"`{source.name}` {percent(achieved[source.name])}" for source in trained)
    text = f"{text} Achieved so far, in the order of the ranking: {reached}.".lstrip()
    pairs = [(a.name, b.name) for a, b in combinations(trained, 2) if a.rank != b.rank]
    if not pairs:
        return f"{text} The ranking could not tell them apart."
    held = sum(achieved[first] >= achieved[second] for first, second in pairs)
    return f"{text} In {held} of {len(pairs)} pairs of different rank, the one ranked higher did at least as well."


def _among_forecasts(record: TransferRecord, placed: Sequence[RankedSource]) -> str:
    """Whether what a source achieved lies between the forecasts of its neighbours in the ranking."""
    own, achieved, part = record.rank, record.achieved, record.trainable
    if own is None or achieved is None:
        return ""
    known = [(source, source.forecasts[part].accuracy) for source in placed if part in source.forecasts]
    above = [(f"`{source.name}`", value) for source, value in known if (source.rank or 0) < own][-1:]
    below = [(f"`{source.name}`", value) for source, value in known if (source.rank or 0) > own][:1]
    if not above + below:
        return ""
    held = all(value >= achieved for _, value in above) and all(value <= achieved for _, value in below)
    named = ", ".join(f"{name} {percent(value)}" for name, value in above + below)
    text = (
        f"`{record.source_name}` achieved {percent(achieved)}. The forecasts of its neighbours in the ranking: {named}."
    )
    return f"{text} By these the order {'held' if held else 'did not hold'}."


def others(count: int) -> str:
    """So many other sources, in words."""
    return f"{count} other" if count == 1 else f"{count} others"
