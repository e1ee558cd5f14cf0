"""A ranking as data: its JSON, its table, and what is refused."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_leep.records.ranking import SCORES, RankedSource, Ranking, SourceForecast
from lightning_leep.records.ranking_text import ranking_text


def forecast(accuracy):
    low, high = max(0, round(accuracy - 0.05, 9)), min(1, round(accuracy + 0.05, 9))
    return SourceForecast(accuracy=accuracy, low=low, high=high, confidence=0.9)


def source(name, accuracy=0.8, rank=1, **kwargs):
    scores = dict.fromkeys(SCORES, 0.5)
    parts = {"head": forecast(accuracy), "all": forecast(accuracy)}
    return RankedSource(name=name, rank=rank, forecasts=parts, scores=scores, **kwargs)


def ranking(*sources, **kwargs):
    given = sources or (source("resnet"), source("vit", 0.7, 2, num_parameters=86_000_000))
    return Ranking(**{"sources": given, "by": "head", "trainable": ("head", "all"), "num_samples": 500, **kwargs})


FULL = ranking(
    source("best", 0.9, 1, num_parameters=11_700_000, source_accuracy=0.76, samples_per_second=120.0),
    source("tied", 0.89, 1, tied_with_best=True, gap=0.01, gap_standard_error=0.02, more_samples=1200),
    source("third", 0.5, 3, history_accuracy=0.4, history_records=3, notes=("It is old.",)),
    RankedSource(name="broken", error="ValueError: no"),
    target="pets",
    notes=("A note.",),
)


@pytest.mark.parametrize("example", [ranking(), FULL])
def test_json_gives_the_same_ranking(example, tmp_path):
    path = tmp_path / "new" / "ranking.json"
    assert json.loads(example.to_json(path)) == json.loads(path.read_text()) == example.to_dict()
    assert Ranking.from_json(path) == example
    assert Ranking.from_json(f"file://{path}") == example
    values = ranking(source("a", 0.0, samples_per_second=math.inf, source_accuracy=math.nan)).to_dict()["sources"][0]
    assert values["samples_per_second"] is values["source_accuracy"] is None


def test_schema():
    values = FULL.to_dict()
    assert set(values) == {"kind", "by", "trainable", "target", "num_samples", "notes", "sources"}
    assert set(values["sources"][1]) == {
        *("name", "rank", "tied_with_best", "forecasts", "scores", "num_parameters", "samples_per_second"),
        *("source_accuracy", "history_accuracy", "history_records", "gap", "gap_standard_error", "more_samples"),
        *("error", "notes"),
    }
    assert set(values["sources"][3]["scores"]) == set(SCORES)
    assert values["sources"][1]["forecasts"]["all"] == {"accuracy": 0.89, "low": 0.84, "high": 0.94, "confidence": 0.9}


def test_best_and_ties():
    assert (FULL.best, FULL.tied) == ("best", ("tied",))
    assert FULL["third"].rank == 3
    with pytest.raises(KeyError):
        FULL["nobody"]


def test_text_says_what_matters():
    text = str(FULL)
    lines = text.splitlines()
    assert lines[0].split() == ["#", "source", "head", "all", "LOO", "LEEP", "k-NN", "params", "LogME"]
    assert lines[1].split()[:4] == ["1=", "best", "0.900", "0.85-0.95"]
    assert [line.split()[0] for line in lines[2:5]] == ["1=", "3", "-"]
    assert "11.7M" in lines[1]
    for sentence in ("tied cannot be told from best. About 1,200 more", "broken failed: ValueError: no", "A note."):
        assert sentence in text
    assert "third: It is old." in text


@pytest.mark.slow
@given(
    st.lists(st.text(st.sampled_from("aZ./日é\u0301 \n\x1b\u202e"), min_size=1), min_size=1, max_size=8, unique=True),
    st.integers(60, 200),
    st.floats(0, 1, allow_nan=False),
)
def test_table_fits_its_width_whatever_the_names(names, width, accuracy):
    text = ranking_text(ranking(*(source(name, accuracy, place + 1) for place, name in enumerate(names))), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert text.count("\n") == len(names)
    assert text.isprintable() or all(line.isprintable() for line in text.split("\n"))


def test_a_wide_table_has_every_column_with_a_value_and_that_which_orders_comes_first():
    titles = ranking_text(FULL, 200).splitlines()[0]
    for title in ("history", "own task", "rows/s", "balanced", "H-score", "NCE"):
        assert title in titles
    assert str(replace(FULL, by="log_me")).splitlines()[0].split()[:3] == ["#", "source", "LogME"]


def test_numbers_of_parameters_have_at_most_five_characters():
    for number, shown in ((999, "999"), (1000, "1.0K"), (25_400, "25.4K"), (100_000, "100K"), (1_500_000_000, "1.5G")):
        assert shown in str(ranking(source("a", num_parameters=number))).split()


def test_pandas():
    frame = FULL.to_pandas()
    assert list(frame["source"]) == ["best", "tied", "third", "broken"]
    assert list(frame["all_high"][:2]) == [0.95, 0.94]
    assert {"rank", "log_me", "num_parameters", "history_accuracy", "error"} <= set(frame.columns)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sources": ()}, ValueError),
        ({"sources": (source("a"), source("a"))}, ValueError),
        ({"by": "nothing"}, ValueError),
        ({"num_samples": -1}, ValueError),
        ({"notes": (3,)}, TypeError),
    ],
)
def test_impossible_ranking(changes, error):
    with pytest.raises(error):
        ranking(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"rank": 0},
        {"rank": True},
        {"num_parameters": -1},
        {"source_accuracy": "0.7"},
        {"scores": {"accuracy": 0.5}},
        {"scores": {"leep": "0"}},
        {"error": 3},
    ],
)
def test_impossible_source(changes):
    with pytest.raises((TypeError, ValueError)):
        replace(source("a"), **changes)


@pytest.mark.parametrize(
    "damage",
    [
        lambda v: v.update(kind="transfer"),
        lambda v: v.pop("by"),
        lambda v: v.update(new=1),
        lambda v: v.update(sources=3),
        lambda v: v["sources"][0].pop("name"),
        lambda v: v["sources"][0].update(new=1),
        lambda v: v["sources"][0]["forecasts"]["head"].update(accuracy=7),
        lambda v: v["sources"][0]["forecasts"]["head"].update(confidence=2),
        lambda v: v["sources"][0].update(forecasts=[1]),
        lambda v: v["sources"][0]["forecasts"]["head"].update(low=0.95),
        lambda v: v["sources"][0]["forecasts"]["head"].update(high=0.1),
        lambda v: v["sources"][0].update(tied_with_best="no"),
        lambda v: v["sources"][0].update(notes=None),
    ],
)
def test_damaged_file_is_one_clear_error(damage, tmp_path):
    values = FULL.to_dict()
    damage(values)
    path = tmp_path / "ranking.json"
    for text in (json.dumps(values), "{"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"Cannot read the ranking .*ranking\.json"):
            Ranking.from_json(path)
    with pytest.raises(FileNotFoundError):
        Ranking.from_json(tmp_path / "nowhere.json")


def test_long_names_that_differ_in_the_middle_are_told_apart():
    names = [f"vit_base_patch16_{size}.augreg_in21k" for size in (224, 384)]
    lines = str(ranking(*(source(name, 0.8, place + 1) for place, name in enumerate(names)))).splitlines()
    assert "224" in lines[1]
    assert "384" in lines[2]
    assert all(len(line) <= 80 for line in lines)


def test_a_hostile_name_of_a_part_cannot_break_a_line():
    parts = {"a\n\x1b[31m": forecast(0.5)}
    text = str(ranking(RankedSource(name="a", rank=1, forecasts=parts), by=next(iter(parts)), trainable=tuple(parts)))
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text


def test_a_note_of_several_sources_is_said_once_and_so_are_the_images_that_settle_all_ties():
    notes, tied = {"notes": ("They are old.",)}, {"tied_with_best": True}
    sources = source("a", 0.8, 1, **notes), source("b", more_samples=800, **tied)
    text = str(ranking(*sources, source("c", more_samples=1200, **tied, **notes)))
    assert "- a, c: They are old." in text.splitlines()
    assert "About 1,200 more" in text
