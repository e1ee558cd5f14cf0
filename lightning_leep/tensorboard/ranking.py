"""A ranking in Markdown."""

from collections.abc import Iterable
from itertools import combinations

from lightning_leep.records.ranking import Ranking
from lightning_leep.records.ranking_text import ranking_columns, ranking_remarks
from lightning_leep.records.transfer import TransferRecord
from lightning_leep.tensorboard.words import code, escaped, percent


def ranking_markdown(ranking: Ranking, source_name: str = "", outcome: str = "") -> str:
    """The table of a ranking in Markdown, the place of one of its sources, in bold, and what has to be said.

    ``outcome`` says how the order turned out (:func:`outcome_of`).
    """
    columns = ranking_columns(ranking)
    names = [source.name for source in ranking.sources]
    lines = [f"| {' | '.join(escaped(column.title) for column in columns)} |", "|---" * len(columns) + "|"]
    for place, name in enumerate(names):
        cells = [escaped(column.cells[place]) if column.title != "source" else code(name) for column in columns]
        lines.append(f"| {' | '.join(f'**{cell}**' if name == source_name and cell else cell for cell in cells)} |")
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


def outcome_of(ranking: Ranking, record: TransferRecord | None, others: Iterable[TransferRecord]) -> str:
    """Sentences on whether the order of a ranking held, as far as its sources have been trained on the same target.

    A transfer that was cut short says nothing. Of the earlier transfers those count that trained the same part for the
    same target, if they are complete.
    """
    if record is None or record.achieved is None or not record.complete:
        return ""
    same = [other for other in others if other.target_name == record.target_name and other.complete]
    same = [other for other in same if other.trainable == record.trainable]
    achieved: dict[str, float] = {}
    for other in (*same, record):
        if other.achieved is not None:
            achieved[other.source_name] = max(other.achieved, achieved.get(other.source_name, 0.0))
    placed = [source for source in ranking.sources if source.rank is not None and source.name in achieved]
    told = [(a.name, b.name) for a, b in combinations(placed, 2) if a.rank != b.rank]
    if len(placed) < 2:
        return "No other source of this ranking has been trained for this target yet, so its order cannot be checked."
    reached = ", ".join(f"`{source.name}` {percent(achieved[source.name])}" for source in placed)
    text = f"Achieved so far, in the order of the ranking: {reached}."
    if not told:
        return f"{text} The ranking could not tell them apart."
    held = sum(achieved[first] >= achieved[second] for first, second in told)
    return f"{text} The order held for {held} of {len(told)} pairs that the ranking told apart."


def others(count: int) -> str:
    """So many other sources, in words."""
    return f"{count} other" if count == 1 else f"{count} others"
