"""A ranking in Markdown."""

from lightning_leep.records.ranking import Ranking
from lightning_leep.records.ranking_text import ranking_columns, ranking_remarks
from lightning_leep.tensorboard.words import code, escaped


def ranking_markdown(ranking: Ranking, source_name: str = "") -> str:
    """The table of a ranking, the place of one of its sources, and what has to be said.

    Args:
        ranking: The ranking.
        source_name: Name of a source that is shown in bold, with its place in words.

    Returns:
        Markdown that TensorBoard's text plugin renders.
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
    parts = [f"## Which source{target}?", escaped(place_of(ranking, source_name)), table, remarks]
    return "\n\n".join(part for part in parts if part)


def place_of(ranking: Ranking, source_name: str) -> str:
    """The place of a source as a sentence; empty if the ranking has no such source."""
    names = [source.name for source in ranking.sources]
    if source_name not in names:
        return ""
    source, count = ranking[source_name], sum(other.rank is not None for other in ranking.sources)
    if source.rank is None:
        return f"`{source_name}` was not ranked."
    text = f"`{source_name}` has rank {source.rank} of {count}"
    if source.rank == 1:
        return f"{text}; {others(len(ranking.tied))} cannot be told from the best." if ranking.tied else f"{text}."
    gap = f" is expected to reach {100 * source.gap:.1f} points more" if source.gap is not None else " is better"
    return f"{text}: `{ranking.best}`{gap}."


def others(count: int) -> str:
    """So many other sources, in words."""
    return f"{count} other" if count == 1 else f"{count} others"
