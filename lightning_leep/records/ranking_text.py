"""A ranking as text: the table, and what has to be said about it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_leep.utils.checks import printable

if TYPE_CHECKING:
    from lightning_leep.records.ranking import RankedSource, Ranking

#: Most characters of a name in the table: of these the fewest with which all names differ.
NAME_LENGTHS = (22, 34, 44)
#: Place of the column of names.
NAMES = 1
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


def ranking_columns(ranking: "Ranking", width: int | None = None) -> list[tuple[str, list[str]]]:
    """The columns of the table, title and cells, without those that have no value or no room in the width."""
    sources = ranking.sources
    ranks = [source.rank for source in sources]
    places = ["-" if rank is None else f"{rank}=" if ranks.count(rank) > 1 else str(rank) for rank in ranks]
    columns = [("#", places), ("source", _names([source.name for source in sources]))]
    used = sum(_width(title, cells) + 2 for title, cells in columns) - 2
    for name in dict.fromkeys((ranking.by, *ranking.trainable, *TITLES)):
        if all(source.value(name) is None for source in sources):
            continue
        title, cells = TITLES.get(name, printable(name)), [_cell(source, name) for source in sources]
        if width is None or used + 2 + _width(title, cells) <= width:
            columns.append((title, cells))
            used += 2 + _width(title, cells)
    return columns


def ranking_remarks(ranking: "Ranking") -> Iterator[str]:
    """Yield what has to be said: ties, failures, what was left out, and the notes."""
    if ranking.tied and ranking.best is not None:
        names = ", ".join(map(printable, ranking.tied))
        text = f"Too close to call: {names} cannot be told from {printable(ranking.best)}."
        needed = [ranking[name].more_samples for name in ranking.tied]
        if None not in needed:
            text += f" About {max(filter(None, needed)):,} more images would settle it."
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
    texts = []
    for place, (title, cells) in enumerate(ranking_columns(ranking, width)):
        side = "<" if place == NAMES else ">"
        texts.append([f"{text:{side}{_width(title, cells)}}" for text in (title, *cells)])
    lines = ("  ".join(row).rstrip() for row in zip(*texts, strict=True))
    return "\n".join([*lines, *(f"- {remark}" for remark in ranking_remarks(ranking))])


def _width(title: str, cells: list[str]) -> int:
    return max(map(len, (title, *cells)))


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
    """A number of parameters in at most five characters, such as 11.7M."""
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
