"""A table in a line of any width, with rich and without."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_leep.utils.table import MIN_NAME_WIDTH, Column, lay_out, printable

COLUMNS = (Column("name", 1, is_name=True), Column("rows", 2), Column("score", 0))
ROWS = [["short", "12", "0.5 "], ["a name of more letters", "1300000", "-12.345*"]]
WHOLE = [
    "name                       rows     score",
    "short                        12      0.5",
    "a name of more letters  1300000  -12.345*",
]


@pytest.mark.parametrize("width", [None, 41, 200])
def test_everything_where_there_is_room(width):
    text, missing = lay_out(COLUMNS, ROWS, width)
    assert text.splitlines() == WHOLE
    assert missing == []


@pytest.mark.parametrize("width", [None, 20])
def test_without_rich_everything_is_whole(width, monkeypatch):
    for module in ("rich", "rich.cells"):
        monkeypatch.setitem(sys.modules, module, None)
    assert lay_out(COLUMNS, ROWS, width) == ("\n".join(WHOLE), [])


def test_names_are_cut_before_a_column_is_left_out():
    text, missing = lay_out(COLUMNS, ROWS, 29)
    assert text.splitlines()[2] == "a name of…  1300000  -12.345*"
    assert missing == []


def test_the_least_important_column_is_left_out_first():
    text, missing = lay_out(COLUMNS, ROWS, 20)
    assert text.splitlines() == ["name           score", "short           0.5", "a name of…  -12.345*"]
    assert missing == ["rows"]
    assert lay_out(COLUMNS, ROWS, 3) == ("   score\n    0.5\n-12.345*", ["name", "rows"])


def test_a_table_without_rows_is_its_head():
    assert lay_out(COLUMNS, [], None)[0] == "name  rows  score"


def test_names_are_text_and_no_markup_and_wide_ones_stay_in_their_column():
    rows = [["[red]x :smile: 'a'", "1", "2"], ["日本語日本語日本語日", "3", "4"]]
    _, *lines = lay_out(COLUMNS, rows, None)[0].splitlines()
    assert lines == ["[red]x :smile: 'a'       1      2", "日本語日本語日本語日     3      4"]
    assert lay_out(COLUMNS, rows, 23)[0].splitlines()[2] == "日本語日 …     3      4"  # no half of a character


names = st.text("ab c[/]'日本e\u0301\U0001f600", max_size=40)
numbers = st.one_of(st.floats(-100, 100).map("{:.3f}".format), st.integers(0, 10**9).map(str), st.just(""))


@given(st.lists(st.tuples(names, numbers, numbers), max_size=5), st.integers(10, 120))
def test_lines_fit_and_numbers_are_whole(rows, width):
    text, missing = lay_out(COLUMNS, rows, width)
    lines = text.split("\n")
    assert len(lines) == len(rows) + 1
    for line in lines:  # a wide character takes two places, an accent none
        wide = sum(unicodedata.east_asian_width(c) in "WF" for c in line)
        assert len(line) + wide - sum(unicodedata.combining(c) > 0 for c in line) <= width
    for row, line in zip(rows, lines[1:], strict=True):
        cells = [row[i] for i in (1, 2) if COLUMNS[i].title not in missing and row[i]]
        assert line.split()[len(line.split()) - len(cells) :] == cells
        if "name" not in missing and len(row[0].encode()) <= MIN_NAME_WIDTH:
            assert line.startswith(row[0].rstrip())


def test_control_characters_and_what_the_encoding_lacks_are_escaped():
    assert printable("a\nb\tc\x1b[31m\x7f\u202e\ud800") == r"a\nb\tc\x1b[31m\x7f\u202e\ud800"
    assert printable("café 日本") == "café 日本"
    assert printable("café 日本", "latin-1") == r"café \u65e5\u672c"
    assert printable("café 日本", "ascii") == r"caf\xe9 \u65e5\u672c"
