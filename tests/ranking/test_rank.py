"""Sources scored one after the other and ranked."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

from lightning_leep import ScoringOptions, Source, rank_reports, rank_sources, score
from lightning_leep.forecast import forecast_accuracy
from lightning_leep.records import save_record
from lightning_leep.records.ranking_text import ranking_text
from tests._helpers.simulated_transfers import make_record, make_report
from tests._helpers.small_zoo import C, D, N, Sees, make_rows, zoo


def rank(sources, data=None, **kwargs):
    return rank_sources(sources, make_rows() if data is None else data, progress=False, **kwargs)


def names(ranking):
    return [source.name for source in ranking.sources]


def scored(source, data=None, **kwargs):
    return score(source, DataLoader(make_rows() if data is None else data, 64), C, progress=False, **kwargs)


def test_best_source_comes_first_with_the_forecasts_and_scores_that_it_has_alone():
    ranking = rank(zoo())
    assert names(ranking) == ["good", "half", "blind"]
    assert (ranking.best, ranking.by, ranking.num_samples, ranking.target) == ("good", "head", N, "TensorDataset")
    for name, source in zoo().items():
        report = scored(source)
        for part in ("head", "all"):
            forecast = forecast_accuracy(report, trainable=part)
            found = ranking[name].forecasts[part]
            assert (found.accuracy, found.low, found.high) == (forecast.value, forecast.low, forecast.high)
        for field in ("leave_one_out_leep", "leep", "nce", "log_me", "h_score", "linear_probe_balanced_accuracy"):
            assert ranking[name].scores[field] == pytest.approx(getattr(report, field), abs=1e-9)
        assert ranking[name].num_parameters == 3 * 4 + 4
        assert ranking[name].samples_per_second > 0


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


def test_one_source_is_a_ranking():
    assert rank({"only": Sees(0, 1, 2)}).best == "only"


def test_same_ranking_from_reports_that_were_made_before():
    made = rank(zoo(), target="pets")
    again = rank_reports({name: scored(source) for name, source in zoo().items()}, target="pets")
    for one, other in zip(made.sources, again.sources, strict=True):
        assert (one.name, one.rank, one.forecasts, one.gap) == (other.name, other.rank, other.forecasts, other.gap)
        assert {**one.scores} == pytest.approx({**other.scores}, abs=1e-9)


@pytest.mark.parametrize(
    "data",
    [
        lambda rows: DataLoader(rows, 16, shuffle=True),
        lambda rows: DataLoader(rows, 7),
        lambda rows: list(rows),
        lambda rows: [tuple(batch) for batch in DataLoader(rows, 32)],
        lambda rows: [{"image": x, "label": int(y)} for x, y in rows],
        lambda rows: Subset(rows, range(N)),
    ],
    ids=["shuffled loader", "small batches", "list of rows", "list of batches", "list of mappings", "subset"],
)
def test_every_kind_of_data_gives_the_same_ranking(data):
    expected, found = rank(zoo()), rank(zoo(), data(make_rows()))
    assert names(found) == names(expected)
    for name in zoo():
        assert {**found[name].scores} == pytest.approx({**expected[name].scores}, abs=1e-6)


def test_what_a_sampler_leaves_out_is_said():
    weights = torch.ones(N)
    weights[:50] = 0
    loader = DataLoader(make_rows(), 16, sampler=WeightedRandomSampler(weights, 300))
    ranking = rank(zoo(), loader)
    assert ranking.num_samples == 100
    assert str(ranking).count("WeightedRandomSampler") == 1


class Counted(Dataset):
    """Rows that remember how often each was read."""

    def __init__(self):
        self.rows, self.reads = make_rows(), [0] * N

    def __len__(self):
        return N

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.rows[index]


class Remembers(Sees):
    """A source that keeps what it was given."""

    def __init__(self, *columns):
        super().__init__(*columns)
        self.given = []

    def forward(self, x):
        self.given.append(x.clone())
        return super().forward(x)


def test_rows_are_decoded_once_for_sources_with_one_transform():
    data = Counted()
    plain = {name: Remembers(0, 1, 2) for name in ("a", "b", "c")}
    rank(plain, data, max_samples=40)
    assert max(data.reads[1:]) == 1  # the first row is looked at before the sources run as well
    given = [torch.cat(source.given) for source in plain.values()]
    assert len(given[0]) == 40
    assert torch.equal(given[0], given[1])
    assert torch.equal(given[0], given[2])


def test_a_source_that_writes_into_its_input_changes_nothing_for_the_next():
    class Writes(Sees):
        def forward(self, x):
            return super().forward(x.mul_(0))

    after = rank({"writes": Writes(0, 1, 2), "good": Sees(0, 1, 2)})
    assert after["good"].scores == rank({"good": Sees(0, 1, 2)})["good"].scores


def test_each_source_sees_rows_through_its_own_transform():
    minus, plus = Remembers(0, 1), Remembers(0, 1)
    rank({"minus": Source(minus, lambda x: -x), "plus": plus})
    assert torch.equal(torch.cat(minus.given), -torch.cat(plus.given))


def test_a_transform_may_return_a_mapping_that_the_model_gets_by_name():
    class Takes(Sees):
        def forward(self, values, scale):
            return super().forward(values * scale.unsqueeze(1))

    ranking = rank({"takes": Source(Takes(0, 1, 2), lambda x: {"values": x, "scale": torch.tensor(1.0)})})
    assert ranking["takes"].scores == rank({"takes": Sees(0, 1, 2)})["takes"].scores


def test_one_random_subset_for_all_in_the_order_of_the_data():
    first, second = Remembers(0), Source(lambda: Sees(1), transform=lambda x: x)
    assert rank({"first": first, "second": second}, max_samples=30).num_samples == 30
    given, rows = torch.cat(first.given), make_rows().tensors[0]
    places = [int((rows == row).all(dim=1).nonzero()) for row in given]
    assert len(places) == 30
    assert places == sorted(places) != list(range(30))


def test_a_factory_keeps_one_model_in_memory_at_a_time():
    alive, most = weakref.WeakSet(), []

    def make():
        model = Sees(0, 1, 2)
        alive.add(model)
        gc.collect()
        most.append(len(alive))
        return model

    rank({name: Source(make) for name in "abc"})
    assert most == [1, 1, 1]
    gc.collect()
    assert not alive


def test_a_function_of_one_argument_is_a_source_and_a_class_is_a_factory():
    class Ready(Sees):
        def __init__(self):
            super().__init__(0, 1, 2)

    model = Sees(0, 1, 2)
    ranking = rank({"function": lambda x: model(x).detach(), "class": Ready})
    assert ranking["class"].num_parameters == 16
    assert ranking["function"].scores["leep"] == ranking["class"].scores["leep"]


def test_head_and_split_batch_of_a_source():
    class Headless(Sees):
        def forward(self, x):
            return x[:, self.columns]

    triples = [(x, 0, y) for x, y in make_rows()]
    source = Source(Headless(0, 1, 2), head=False, split_batch=lambda batch: (batch[0], batch[2]))
    ranking = rank({"headless": source}, triples)
    assert ranking["headless"].scores["leep"] is None
    assert ranking["headless"].scores["log_me"] == pytest.approx(rank(zoo())["good"].scores["log_me"])


class Bad(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 3), torch.nan)


def not_there():
    return __import__("no_such_module")


FAULTS = {"shape": nn.Linear(D + 1, 3), "nan": Bad(), "import": Source(not_there), "nothing": Source(lambda: None)}


def test_sources_that_fail_are_listed_with_their_error_and_the_others_go_on():
    ranking = rank({**FAULTS, **zoo()})
    assert names(ranking)[:3] == ["good", "half", "blind"]
    assert [ranking[name].rank for name in FAULTS] == [None] * 4
    for name, text in {
        "shape": "mat1 and mat2",
        "nan": "finite",
        "import": "no_such_module",
        "nothing": "None",
    }.items():
        assert text in ranking[name].error
        assert f"{name} failed" in str(ranking)


def test_all_failing_in_different_ways_leaves_no_best():
    ranking = rank(FAULTS)
    assert ranking.best is None
    assert ranking.tied == ()
    assert "import failed" in str(ranking)


def test_all_failing_alike_is_an_error():
    with pytest.raises(RuntimeError, match="No source could be scored: .*mat1 and mat2"):
        rank({"a": nn.Linear(D + 1, 3), "b": nn.Linear(D + 1, 3)})


class Stream(IterableDataset):
    def __iter__(self):
        yield from make_rows()


@pytest.mark.parametrize(
    ("sources", "data", "options", "error", "text"),
    [
        ({}, None, {}, ValueError, "at least one source"),
        ([Sees(0)], None, {}, TypeError, "map names to sources"),
        ({"": Sees(0)}, None, {}, ValueError, "the name ''"),
        ({"a": 3}, None, {}, TypeError, r"sources\['a'\]"),
        (None, 3, {}, TypeError, "`data` must be a data set"),
        (None, [], {}, ValueError, "empty data set"),
        (None, [torch.zeros(D)] * 9, {}, TypeError, "pair"),
        (None, Stream(), {}, TypeError, "with an index"),
        (None, {"train": make_rows()}, {}, TypeError, "got dict"),
        (None, "imagefolder:here", {}, TypeError, "got str"),
        (None, tuple(make_rows().tensors), {}, TypeError, "first row of `data` has no label"),
        (None, iter([1]), {}, ValueError, "readable once for each source"),
        (None, None, {"trainable": ()}, ValueError, "`trainable` must name"),
        (None, None, {"trainable": ("all", "all")}, ValueError, "each once"),
        (None, None, {"by": "accuracy"}, ValueError, "`by` must be one of"),
        (None, None, {"max_samples": 1}, ValueError, "max_samples"),
        (None, None, {"max_samples": True}, TypeError, "max_samples"),
        (None, None, {"batch_size": 0}, ValueError, "batch_size"),
        (None, None, {"time_budget": -1.0}, ValueError, "time_budget"),
        (None, None, {"target": ""}, ValueError, "target"),
        (None, None, {"num_target_classes": 0}, ValueError, "num_target_classes"),
    ],
)
def test_bad_input_is_one_clear_error_before_a_source_runs(sources, data, options, error, text):
    good = Remembers(0, 1)
    with pytest.raises(error, match=text):
        rank({"good": good} if sources is None else sources, data, **options)
    assert good.given == []


def test_transform_with_batches_is_an_error_of_that_source():
    ranking = rank({"a": Source(Sees(0), lambda x: x), "b": Sees(0)}, DataLoader(make_rows(), 16))
    assert "needs a data set" in ranking["a"].error
    assert ranking.best == "b"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": 3}, TypeError),
        ({"model": Bad(), "transform": 3}, TypeError),
        ({"model": Bad(), "options": {}}, TypeError),
        ({"model": Bad(), "source_accuracy": 80}, ValueError),
        ({"model": Bad(), "head": 3}, TypeError),
        ({"model": Bad(), "options": ScoringOptions(feature_scores=False, layers=None), "head": False}, ValueError),
    ],
)
def test_bad_source(arguments, error):
    with pytest.raises(error):
        Source(**arguments)


def test_reports_of_other_classes_cannot_be_ranked_together():
    data = make_rows()
    two = TensorDataset(data.tensors[0], data.tensors[1] % 2)
    few = score(Sees(0, 1), DataLoader(two, 50), 2, progress=False)
    with pytest.raises(ValueError, match="same target classes"):
        rank_reports({"two": few, "three": scored(Sees(0, 1))})


def test_reports_of_other_rows_are_ranked_with_a_note():
    other = scored(Sees(0, 1, 2), Subset(make_rows(), range(100)))
    ranking = rank_reports({"all rows": scored(Sees(0, 1, 2)), "some rows": other})
    assert "different rows" in str(ranking)


@pytest.mark.parametrize("reports", [{}, [], {"a": 3}, {"": None}])
def test_no_reports(reports):
    with pytest.raises((TypeError, ValueError), match="report|name"):
        rank_reports(reports)


def past(source_name, target_name, achieved, probe=0.7):
    report = make_report(C, probe=probe + 1e-6 * len(source_name) + 1e-7 * len(target_name))
    return make_record(achieved, "head", report=report, target_name=target_name, source_name=source_name)


def test_history_of_other_targets_moves_the_forecast_and_stands_beside_it():
    history = [
        past(name, target, 0.7 + shift)
        for target, level in (("cars", 0.0), ("dogs", 0.01), ("birds", -0.01))
        for name, shift in (("good", 0.05 + level), ("half", -0.05 + level))
    ]
    history += [past("good", "pets", 0.1), past("half", "pets", 0.99)]  # of the target itself
    without, ranking = rank(zoo(), target="pets"), rank(zoo(), target="pets", history=history)
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


def test_a_forecast_without_features_keeps_its_open_end_whatever_the_history_adds():
    """It is a lower bound: a history in which the source was worse than others does not bound it from above."""
    history = [
        past(name, target, achieved)
        for target in ("cars", "dogs", "birds")
        for name, achieved in (("good", 0.5), ("half", 0.9))
    ]
    reports = {name: scored(zoo()[name], options=ScoringOptions(feature_scores=False)) for name in ("good", "half")}
    assert reports["good"].linear_probe_accuracy is None
    without, ranking = rank_reports(reports), rank_reports(reports, history=history)
    before, after = without["good"].forecasts["head"], ranking["good"].forecasts["head"]
    assert after.accuracy < before.accuracy
    assert (before.high, after.high) == (1.0, 1.0)


def test_the_history_of_sources_does_not_leave_the_interval_of_the_scores():
    """A source may do on this target what it never did before: only the scores have seen the target."""
    history = [
        past(name, target, achieved)
        for target in ("cars", "dogs", "birds")
        for name, achieved in (("good", 0.5), ("half", 0.9))
    ]
    without, ranking = rank(zoo()), rank(zoo(), history=history)
    for name, direction in (("good", -1), ("half", 1)):
        before, after = without[name].forecasts["head"], ranking[name].forecasts["head"]
        assert direction * (after.accuracy - before.accuracy) > 0.05
        assert after.low <= before.low
        assert before.high <= after.high


def test_a_word_of_ones_own_has_the_forecast_of_all_layers_until_the_history_has_it():
    ranking = rank({"a": Sees(0, 1, 2)}, trainable=("all", "adapters"))
    assert ranking["a"].forecasts["adapters"] == ranking["a"].forecasts["all"]
    assert any("'adapters' is none of" in note for note in ranking.notes)
    known = rank({"a": Sees(0, 1, 2)}, trainable=("all", "adapters"), history=[make_record(trainable="adapters")])
    assert not any("'adapters'" in note for note in known.notes)


def test_history_may_be_a_folder(tmp_path):
    for target in ("cars", "dogs"):
        save_record(past("good", target, 0.8), tmp_path)
    assert rank(zoo(), history=tmp_path)["good"].history_records == 2


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


def test_a_source_that_is_clearly_worse_has_a_rank_of_its_own():
    ranking = rank(zoo(), make_rows(300))
    assert [source.rank for source in ranking.sources] == [1, 2, 3]
    assert ranking.tied == ()
