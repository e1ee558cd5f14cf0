"""A table in a line of any width."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_leep.text_table import MIN_NAME_WIDTH, Column, cut, display_width, lay_out, printable

COLUMNS = (Column("name", 1, is_name=True), Column("rows", 2), Column("score", 0))
ROWS = [["short", "12", "0.5"], ["a name of more letters", "1300000", "-12.345"]]


def test_everything_where_there_is_room():
    expected = [
        "name                       rows    score",
        "short                        12      0.5",
        "a name of more letters  1300000  -12.345",
    ]
    for width in (None, 40, 200):
        text, missing = lay_out(COLUMNS, ROWS, width)
        assert text.splitlines() == expected
        assert missing == []


def test_names_are_cut_before_a_column_is_left_out():
    text, missing = lay_out(COLUMNS, ROWS, 30)
    assert text.splitlines()[2] == "a name of...  1300000  -12.345"
    assert missing == []


def test_the_least_important_column_is_left_out_first():
    text, missing = lay_out(COLUMNS, ROWS, 20)
    assert text.splitlines() == ["name           score", "short            0.5", "a name o...  -12.345"]
    assert missing == ["rows"]
    assert lay_out(COLUMNS, ROWS, 3) == ("  score\n    0.5\n-12.345", ["name", "rows"])


def test_a_table_without_rows_is_its_head():
    assert lay_out(COLUMNS, [])[0] == "name  rows  score"


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40).map(printable)
numbers = st.one_of(st.floats(-100, 100).map("{:.3f}".format), st.integers(0, 10**9).map(str), st.just(""))


@given(st.lists(st.tuples(names, numbers, numbers), max_size=5), st.integers(10, 120))
def test_lines_fit_and_numbers_are_whole(rows, width):
    text, missing = lay_out(COLUMNS, rows, width)
    lines = text.split("\n")
    assert len(lines) == len(rows) + 1
    assert all(display_width(line) <= max(width, 10) for line in lines)
    for row, line in zip(rows, lines[1:], strict=True):
        cells = [row[i] for i in (1, 2) if COLUMNS[i].title not in missing and row[i]]
        assert line.split()[len(line.split()) - len(cells) :] == cells
        assert len(row[0]) > MIN_NAME_WIDTH or "name" in missing or line.startswith(row[0].rstrip())


@pytest.mark.parametrize(
    ("text", "places"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("", 0), ("\U0001f600", 2)], ids=ascii
)
def test_places_of_characters(text, places):
    assert display_width(text) == places


def test_a_wide_character_is_not_cut_in_half():
    assert cut("日本語日本語", 8) == "日本..."
    assert cut("日本語日", 8) == "日本語日"


def test_control_characters_and_what_the_encoding_lacks_are_escaped():
    assert printable("a\nb\tc\x1b[31m\x7f\u202e\ud800") == r"a\nb\tc\x1b[31m\x7f\u202e\ud800"
    assert printable("café 日本") == "café 日本"
    assert printable("café 日本", "latin-1") == r"café \u65e5\u672c"
    assert printable("café 日本", "ascii") == r"caf\xe9 \u65e5\u672c"
