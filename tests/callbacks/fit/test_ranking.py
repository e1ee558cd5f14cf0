"""A fit that knows the ranking its source was chosen from."""

import warnings

import pytest
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_leep import LEEPCallback, rank_sources
from lightning_leep.records import load_history
from lightning_leep.records.ranking import RankedSource, Ranking, SourceForecast
from lightning_leep.tensorboard.ranking import outcome_of
from tests._helpers.logged import events, texts
from tests._helpers.simulated_transfers import make_record
from tests._helpers.small_transfer import DATA, FEW_SCORES, Classifier, fit, make_source


@pytest.fixture(scope="module")
def ranking():
    return rank_sources({"one": make_source(), "other": make_source()}, DATA, target="pets", progress=False)


def run(tmp_path, ranking, name="one", **kwargs):
    options = {"source_name": name, "target_name": "pets", "history": str(tmp_path / "history"), **kwargs}
    callback = LEEPCallback(make_source(), ranking=ranking, **options)
    fit(Classifier(), callback, logger=TensorBoardLogger(tmp_path, name="", version=f"run {name}"))
    return texts(events(tmp_path / f"run {name}"), "ranking")


@pytest.mark.usefixtures("no_figures")
def test_panel_shows_the_place_and_record_keeps_it(tmp_path, ranking):
    path = tmp_path / "ranking.json"
    ranking.to_json(path)
    before, after = run(tmp_path, str(path))
    assert "`one` has rank" in before
    assert "pets" in before
    assert "No other source of this ranking has been trained" in after
    (record,) = load_history(tmp_path / "history")
    assert record.ranking == ranking.brief()
    assert record.order_held in after.replace("\\", "")
    *_, after = run(tmp_path, ranking, "other")
    assert "Achieved so far" in after
    assert {record.source_name: record.rank for record in load_history(tmp_path / "history")} == {
        source.name: source.rank for source in ranking.sources
    }
    before, _ = run(tmp_path, ranking, "a stranger")
    assert "has rank" not in before
    assert {record.source_name: record.rank for record in load_history(tmp_path / "history")}["a stranger"] is None


@pytest.mark.parametrize("content", [None, '{"kind": "transfer"}'])
def test_ranking_that_cannot_be_read_is_one_warning_and_changes_nothing(content, tmp_path):
    path = tmp_path / "ranking.json"
    if content is not None:
        path.write_text(content)
    callback = LEEPCallback(make_source(), ranking=str(path), history=str(tmp_path / "history"), scoring=FEW_SCORES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Classifier(), callback)
    assert len([w for w in caught if "show the ranking" in str(w.message)]) == 1
    (record,) = load_history(tmp_path / "history")
    assert record.rank is None


def ranked(*ranks, forecasts=()):
    known = {name: {"head": SourceForecast(accuracy=v, low=0, high=1, confidence=0.9)} for name, v in forecasts}
    sources = [RankedSource(name=n, rank=r, forecasts=known.get(n, {})) for n, r in zip("abcd", ranks, strict=False)]
    return Ranking(sources=tuple(sources), by="head", trainable=("head",), num_samples=50)


def record(name, achieved, ranking=None, **kwargs):
    return make_record(achieved, source_name=name, ranking=ranking, **{"target_name": "pets", **kwargs})


def test_order_that_held_and_one_that_did_not():
    earlier = [record("a", 0.9), record("b", 0.7)]
    assert "In 3 of 3 pairs" in outcome_of(record("c", 0.6, ranked(1, 2, 3)), earlier)
    assert "In 1 of 3 pairs" in outcome_of(record("c", 0.95, ranked(1, 2, 3)), earlier)


def test_only_complete_transfers_of_the_same_part_and_target_are_compared():
    others = [record("a", 0.9, target_name="cars"), record("a", 0.9, trainable="all"), record("a", 0.9, complete=False)]
    assert "No other source" in outcome_of(record("b", 0.5, ranked(1, 2)), others)


def test_ties_are_not_counted_and_the_best_run_of_a_source_counts():
    assert "could not tell them apart" in outcome_of(record("b", 0.9, ranked(1, 1)), [record("a", 0.5)])
    runs = [record("a", 0.5), record("a", 0.8)]
    assert "`a` 80.0%, `b` 70.0%" in outcome_of(record("b", 0.7, ranked(1, 2)), runs)
    assert outcome_of(record("b", 0.7), runs) == ""
    assert outcome_of(record("b", 0.7, ranked(1, 2), complete=False), runs) == ""


@pytest.mark.parametrize(("achieved", "held"), [(0.7, True), (0.8, True), (0.81, False), (0.6, True), (0.59, False)])
def test_achieved_accuracy_beside_the_forecasts_of_the_neighbours(achieved, held):
    """Of the sources that share the rank of `b` none is a neighbour: the ranking does not say which is better."""
    table = ranked(1, 2, 2, 4, forecasts=[("a", 0.8), ("b", 0.1), ("c", 0.2), ("d", 0.6)])
    text = outcome_of(record("b", achieved, table), [])
    assert f"`a` 80.0%, `d` 60.0%. By these the order {'held' if held else 'did not hold'}." in text


def test_no_forecasts_of_neighbours():
    alone = [("b", 0.7)]
    for table in (ranked(1, 2, 3), ranked(1, 1, forecasts=[("a", 0.8)]), ranked(1, 2, None, forecasts=alone)):
        assert outcome_of(record("b", 0.7, table), []).startswith("No other source")
    of_all = record("b", 0.7, ranked(1, 2, forecasts=[("a", 0.8)]), trainable="all")
    assert outcome_of(of_all, []).startswith("No other source")
