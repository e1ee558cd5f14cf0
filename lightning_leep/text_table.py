"""A table of text that fits the terminal: numbers stay whole, names are cut, minor columns are left out."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

#: Names are cut to no less than this many characters; before that, columns are left out.
MIN_NAME_WIDTH = 10
GAP = "  "


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its head.
        rank: Importance; columns of a high rank are the first that a narrow table lacks.
        is_name: Whether cells may be cut; others are numbers, on the right of the column.
    """

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


def display_width(text: str) -> int:
    """Places that a text takes in a terminal: two for a wide character, none for an accent that is one of its own."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def cut(text: str, width: int, mark: str = "...") -> str:
    """The text, if it takes at most ``width`` places, else its beginning and the mark."""
    if display_width(text) <= width:
        return text
    while text and display_width(text) + len(mark) > width:
        text = text[:-1]
    return text + mark


def lay_out(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None
) -> tuple[str, list[str]]:
    """The table with columns aligned by spaces, and the titles of those that were left out.

    Args:
        columns: What the columns are.
        rows: Cells, one a column.
        width: Places in a line; None for as many as it takes. The most important column is there whatever the width.
    """
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    wanted = [max(map(display_width, (c.title, *texts))) for c, texts in zip(columns, cells, strict=True)]
    least = [
        max(len(c.title), min(w, MIN_NAME_WIDTH)) if c.is_name else w for c, w in zip(columns, wanted, strict=True)
    ]
    shown: list[int] = []
    for i in sorted(range(len(columns)), key=lambda i: columns[i].rank):
        if width is None or not shown or _line(least, [*shown, i]) <= width:
            shown.append(i)
    shown.sort()
    widths = list(wanted if width is None else least)
    spare = 0 if width is None else width - _line(least, shown)
    while spare > 0 and (short := [i for i in shown if widths[i] < wanted[i]]):
        for i in short[:spare]:  # what is left over goes to the names, a place each in turn
            widths[i] += 1
            spare -= 1
    lines = [
        GAP.join(_place(line[i], widths[i], columns[i].is_name) for i in shown).rstrip()
        for line in ([c.title for c in columns], *rows)
    ]
    return "\n".join(lines), [c.title for i, c in enumerate(columns) if i not in shown]


def _line(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[i] for i in shown) + len(GAP) * (len(shown) - 1)


def _place(text: str, width: int, is_name: bool) -> str:
    text = cut(text, width) if is_name else text
    space = " " * (width - display_width(text))
    return text + space if is_name else space + text
