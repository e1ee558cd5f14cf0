"""The order of sources, by their scores, from earlier reports and with a history."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_leep import ScoringOptions, Source, rank_reports, score
from lightning_leep.forecast import forecast_accuracy
from lightning_leep.records import save_record
from lightning_leep.records.ranking_text import ranking_text
from tests._helpers.simulated_transfers import make_record, make_report
from tests._helpers.small_zoo import C, N, Sees, make_rows, names, rank, scored, zoo


def test_best_source_comes_first_with_the_scores_that_it_has_alone():
    ranking = rank(zoo())
    assert names(ranking) == ["good", "half", "blind"]
    assert (ranking.best, ranking.by, ranking.num_samples, ranking.target) == ("good", "head", N, "TensorDataset")
    assert ([source.rank for source in ranking.sources], ranking.tied) == ([1, 2, 3], ())
    pair = rank({name: source for name, source in zoo().items() if name != "half"})  # too few to inform each other
    for name, source in zoo().items():
        report = scored(source)
        for part in ("head", "all") if name != "half" else ():
            forecast = forecast_accuracy(report, trainable=part)
            found = pair[name].forecasts[part]
            assert (found.accuracy, found.low, found.high) == (forecast.value, forecast.low, forecast.high)
        for field in ("leave_one_out_leep", "leep", "nce", "log_me", "h_score", "linear_probe_balanced_accuracy"):
            assert ranking[name].scores[field] == pytest.approx(getattr(report, field), abs=1e-9)
        assert ranking[name].num_parameters == 3 * 4 + 4
        assert ranking[name].samples_per_second > 0


def test_network_of_several_layers_has_the_forecast_of_its_report():
    deep = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4))
    report, source = scored(deep), rank({"deep": deep})["deep"]
    assert report.multi_layer_probe_accuracy != report.linear_probe_accuracy
    assert source.scores["multi_layer_probe_accuracy"] == report.multi_layer_probe_accuracy
    assert source.forecasts["all"].accuracy == forecast_accuracy(report, trainable="all").value


@pytest.mark.parametrize("by", ["all", "leep", "log_me", "num_parameters", "source_accuracy"])
def test_any_column_orders(by):
    sources = {name: Source(model, source_accuracy=0.1 * len(name)) for name, model in zoo().items()}
    sources["wide"] = Source(Sees(0, 1, 2, 3, 4, 5), source_accuracy=0.9)
    ranking = rank(sources, by=by)
    values = [source.value(by) for source in ranking.sources]
    assert None not in values
    assert values == sorted(values, reverse=True)
    assert ranking.by == by


def test_source_without_the_column_has_no_place_and_says_so():
    sources = {"known": Source(Sees(0), source_accuracy=0.5), "unknown": Sees(0, 1, 2)}
    ranking = rank(sources, by="source_accuracy")
    assert [(source.name, source.rank) for source in ranking.sources] == [("known", 1), ("unknown", None)]
    assert "source_accuracy" in ranking["unknown"].notes[0]


def test_same_ranking_from_reports_that_were_made_before():
    made = rank(zoo(), target="pets")
    again = rank_reports({name: scored(source) for name, source in zoo().items()}, target="pets")
    for one, other in zip(made.sources, again.sources, strict=True):
        assert (one.name, one.rank, one.forecasts, one.gap) == (other.name, other.rank, other.forecasts, other.gap)
        assert {**one.scores} == pytest.approx({**other.scores}, abs=1e-9)


def test_reports_of_other_classes_or_no_reports_cannot_be_ranked():
    data = make_rows()
    two = TensorDataset(data.tensors[0], data.tensors[1] % 2)
    few = score(Sees(0, 1), DataLoader(two, 50), 2, progress=False)
    with pytest.raises(ValueError, match="same target classes"):
        rank_reports({"two": few, "three": scored(Sees(0, 1))})
    for reports in ({}, [], {"a": 3}, {"": None}):
        with pytest.raises((TypeError, ValueError), match="report|name"):
            rank_reports(reports)


def test_reports_of_other_rows_are_ranked_with_a_note():
    other = scored(Sees(0, 1, 2), Subset(make_rows(), range(100)))
    ranking = rank_reports({"all rows": scored(Sees(0, 1, 2)), "some rows": other})
    assert "different rows" in str(ranking)


def past(source_name, target_name, achieved, probe=0.7):
    report = make_report(C, probe=probe + 1e-6 * len(source_name) + 1e-7 * len(target_name))
    return make_record(achieved, "head", report=report, target_name=target_name, source_name=source_name)


def test_history_of_other_targets_moves_the_forecast_and_stands_beside_it(tmp_path):
    history = [
        past(name, target, 0.7 + shift)
        for target, level in (("cars", 0.0), ("dogs", 0.01), ("birds", -0.01))
        for name, shift in (("good", 0.05 + level), ("half", -0.05 + level))
    ]
    history += [past("good", "pets", 0.1), past("half", "pets", 0.99)]  # of the target itself
    for record in history:
        save_record(record, tmp_path)
    without, ranking = rank(zoo(), target="pets"), rank(zoo(), target="pets", history=tmp_path)
    assert ranking["good"].history_accuracy == pytest.approx(0.75)
    assert ranking["half"].history_accuracy == pytest.approx(0.65)
    assert (ranking["good"].history_records, ranking["blind"].history_records) == (3, 0)
    of_head = [
        {source.name: source.forecasts["head"].accuracy for source in found.sources} for found in (without, ranking)
    ]
    before, after = (accuracies["good"] - accuracies["half"] for accuracies in of_head)
    assert after == pytest.approx(4 / 7 * before + 3 / 7 * 0.1, abs=0.01)  # 0.1 lay between them on three targets
    assert ranking["blind"].forecasts == without["blind"].forecasts
    assert "no history" in ranking_text(ranking, 200)
    assert "No history of these sources" in str(without)


def reversed_history():
    """Transfers in which the good source was worse than the other one."""
    achieved = {"good": 0.5, "half": 0.9}
    return [past(name, target, achieved[name]) for target in ("cars", "dogs", "birds") for name in achieved]


def test_a_forecast_without_features_keeps_its_open_end_whatever_the_history_adds():
    """It is a lower bound: a history in which the source was worse than others does not bound it from above."""
    reports = {name: scored(zoo()[name], options=ScoringOptions(feature_scores=False)) for name in ("good", "half")}
    assert reports["good"].linear_probe_accuracy is None
    without, ranking = rank_reports(reports), rank_reports(reports, history=reversed_history())
    before, after = without["good"].forecasts["head"], ranking["good"].forecasts["head"]
    assert after.accuracy < before.accuracy
    assert (before.high, after.high) == (1.0, 1.0)


def test_the_history_of_sources_does_not_leave_the_interval_of_the_scores():
    """A source may do on this target what it never did before: only the scores have seen the target."""
    without, ranking = rank(zoo()), rank(zoo(), history=reversed_history())
    for name, direction in (("good", -1), ("half", 1)):
        before, after = without[name].forecasts["head"], ranking[name].forecasts["head"]
        assert direction * (after.accuracy - before.accuracy) > 0.05
        assert after.low <= before.low
        assert before.high <= after.high


def test_a_word_of_ones_own_has_the_forecast_of_all_layers_until_the_history_has_it():
    ranking = rank({"a": Sees(0, 1, 2)}, trainable=("all", "adapters"))
    assert ranking["a"].forecasts["adapters"] == ranking["a"].forecasts["all"]
    assert any("'adapters' is not one of" in note for note in ranking.notes)
    known = rank({"a": Sees(0, 1, 2)}, trainable=("all", "adapters"), history=[make_record(trainable="adapters")])
    assert not any("'adapters'" in note for note in known.notes)


def test_equal_sources_share_the_first_rank():
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(3, (200,), generator=generator)
    inputs = 1.2 * nn.functional.one_hot(labels, 3).repeat(1, 2) + torch.randn(200, 6, generator=generator)
    ranking = rank({"left": Sees(0, 1, 2), "right": Sees(3, 4, 5)}, TensorDataset(inputs, labels), trainable="head")
    assert [source.rank for source in ranking.sources] == [1, 1]
    assert len(ranking.tied) == 1
    assert "Too close to call" in str(ranking)
    second = ranking.sources[1]
    values = [source.forecasts["head"].accuracy for source in ranking.sources]
    assert second.gap == pytest.approx(values[0] - values[1])
    assert second.gap_standard_error > 0
