"""A table of text that fits the terminal: numbers stay whole, names are cut, minor columns are left out."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

#: Names are cut to no less than this many characters; before that, columns are left out.
MIN_NAME_WIDTH = 10
GAP = "  "


class Column(NamedTuple):
    """A column's head, its rank (a narrow table lacks the highest first), and if it is cut names or whole numbers."""

    title: str
    rank: int
    is_name: bool = False


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""The text on one line in the characters of an encoding; all others, control characters too, as escapes.

    Example:
        >>> printable("caf\u00e9\n\x1b[31m", "ascii")
        'caf\\xe9\\n\\x1b[31m'
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> tuple[str, list[str]]:
    """The table in lines of at most ``width`` places, None for any, and the titles of columns that were left out.

    The most important column is there whatever the width; without rich, every column is, and no name is cut.
    """
    lines = [[c.title for c in columns], *rows]
    wanted = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    lines = [[t if c.is_name else t.rjust(w) for t, c, w in zip(line, columns, wanted, strict=True)] for line in lines]
    try:
        from rich.cells import cell_len
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return "\n".join(GAP.join(map(str.ljust, line, wanted)).rstrip() for line in lines), []
    least = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    least = [min(w, MIN_NAME_WIDTH) if c.is_name else w for w, c in zip(least, columns, strict=True)]
    shown: list[int] = []
    for i in sorted(range(len(columns)), key=lambda i: columns[i].rank):
        if width is None or not shown or sum(least[j] + len(GAP) for j in (*shown, i)) <= width + len(GAP):
            shown.append(i)
    places = sys.maxsize if width is None else max(width, least[shown[0]])
    table = Table.grid(padding=(0, len(GAP), 0, 0))
    for i in sorted(shown):
        table.add_column(no_wrap=not columns[i].is_name)  # rich narrows those that may wrap, the widest first
    for line in lines:
        table.add_row(*(Text(line[i], no_wrap=True, overflow="ellipsis") for i in sorted(shown)))
    segments = Console().render_lines(table, Console().options.update_width(places), pad=False)
    text = "\n".join("".join(segment.text for segment in line).rstrip() for line in segments)
    return text, [c.title for i, c in enumerate(columns) if i not in shown]
