"""A ranking as text: the table, and what has to be said about it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from lightning_leep.utils.checks import printable

if TYPE_CHECKING:
    from lightning_leep.records.ranking import RankedSource, Ranking

#: Most characters of a name in the table: of these the fewest with which all names differ.
NAME_LENGTHS = (22, 34, 44)
#: Short titles of what sources may be ordered by, the most telling first: a narrow table leaves out the last ones.
TITLES = {
    "leave_one_out_leep": "LOO LEEP",
    "nearest_neighbour_accuracy": "k-NN",
    "num_parameters": "params",
    "log_me": "LogME",
    "history_accuracy": "history",
    "linear_probe_accuracy": "probe",
    "source_accuracy": "own task",
    "samples_per_second": "rows/s",
    "multi_layer_probe_accuracy": "layers",
    "linear_probe_balanced_accuracy": "balanced",
    "leep": "LEEP",
    "nce": "NCE",
    "h_score": "H-score",
}


class TextColumn(NamedTuple):
    """A column of the table."""

    title: str
    cells: list[str]
    is_text: bool = False

    @property
    def width(self) -> int:
        """Characters of the widest cell."""
        return max(len(self.title), *map(len, self.cells))


def ranking_columns(ranking: "Ranking", width: int | None = None) -> list[TextColumn]:
    """The columns of the table; those that do not fit into the width, and those without a value, are left out."""
    sources = ranking.sources
    ranks = [str(source.rank) if source.rank else "-" for source in sources]
    shared = [
        f"{rank}=" if source.rank and ranks.count(rank) > 1 else rank
        for rank, source in zip(ranks, sources, strict=True)
    ]
    columns = [TextColumn("#", shared), TextColumn("source", _names([source.name for source in sources]), True)]
    names = [ranking.by, *(part for part in ranking.trainable if part != ranking.by)]
    names += [name for name in TITLES if name != ranking.by]
    used = sum(column.width + 2 for column in columns) - 2
    for name in names:
        if all(source.value(name) is None for source in sources):
            continue
        column = TextColumn(TITLES.get(name, printable(name)), [_cell(source, name) for source in sources])
        if width is None or used + 2 + column.width <= width:
            columns.append(column)
            used += 2 + column.width
    return columns


def ranking_remarks(ranking: "Ranking") -> Iterator[str]:
    """Yield what has to be said: ties, failures, what was left out, and the notes."""
    if ranking.tied and ranking.best is not None:
        names = ", ".join(map(printable, ranking.tied))
        text = f"Too close to call: {names} cannot be told from {printable(ranking.best)}."
        needed = [source.more_samples for source in ranking.sources if source.tied_with_best and source.more_samples]
        if needed:
            text += f" About {max(needed):,} more images would settle it."
        yield text
    for source in ranking.sources:
        if source.error:
            yield f"{printable(source.name)} failed: {printable(source.error)}"
    for note in dict.fromkeys(note for source in ranking.sources for note in source.notes):
        names = ", ".join(printable(source.name) for source in ranking.sources if note in source.notes)
        yield f"{names}: {printable(note)}"
    yield from map(printable, ranking.notes)


def ranking_text(ranking: "Ranking", width: int = 80) -> str:
    """The table, at most ``width`` characters wide, and the remarks, one a line."""
    columns = ranking_columns(ranking, width)
    rows = [[column.title for column in columns], *zip(*(column.cells for column in columns), strict=True)]
    lines = [
        "  ".join(
            cell.ljust(column.width) if column.is_text else cell.rjust(column.width)
            for cell, column in zip(row, columns, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *(f"- {remark}" for remark in ranking_remarks(ranking))])


def _cell(source: "RankedSource", name: str) -> str:
    if name in source.forecasts:
        forecast = source.forecasts[name]
        return f"{forecast.accuracy:.3f} {forecast.low:.2f}-{forecast.high:.2f}"
    value = source.value(name)
    if value is None:
        return "no history" if name == "history_accuracy" and source.rank is not None else ""
    if name == "num_parameters":
        return _count(value)
    return f"{value:,.0f}" if name == "samples_per_second" else f"{value:.3f}"


def _count(value: float) -> str:
    """A number of parameters in at most five characters.

    Example:
        >>> _count(11_689_512), _count(512), _count(86_000)
        ('11.7M', '512', '86.0K')
    """
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if value >= scale:
            return f"{value / scale:.3g}{letter}" if value / scale >= 100 else f"{value / scale:.1f}{letter}"
    return f"{value:.0f}"


def _names(names: list[str]) -> list[str]:
    """The names as short as they can be told apart, but for ``NAME_LENGTHS``."""
    shown = [printable(name) for name in names]
    for length in NAME_LENGTHS:
        short = [n if len(n) <= length else f"{n[: length - 9]}…{n[-8:]}" for n in shown]
        if len(set(short)) == len(set(shown)):
            break
    return short
