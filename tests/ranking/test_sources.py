"""What sources and data may be, and what becomes of those that fail."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, WeightedRandomSampler

from lightning_leep import ScoringOptions, Source
from tests._helpers.small_zoo import D, N, Sees, make_rows, names, rank, zoo


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        lambda rows: DataLoader(rows, 7, shuffle=True),
        lambda rows: list(rows),
        lambda rows: [tuple(batch) for batch in DataLoader(rows, 32)],
        lambda rows: [{"image": x, "label": int(y)} for x, y in rows],
        lambda rows: Subset(rows, range(N)),
    ],
    ids=["shuffled loader", "list of rows", "list of batches", "list of mappings", "subset"],
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

    alone = rank({"good": Sees(0, 1, 2)})["good"].scores
    for before in ({}, {"reads": Sees(0)}):  # the batches are kept while the first source reads them
        assert rank({**before, "writes": Writes(0, 1, 2), "good": Sees(0, 1, 2)})["good"].scores == alone


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


def test_all_failing_leaves_no_best_and_all_failing_alike_is_an_error():
    ranking = rank(FAULTS)
    assert (ranking.best, ranking.tied) == (None, ())
    assert "import failed" in str(ranking)
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
        (None, None, {"trainable": 3}, TypeError, "`trainable` must be a word or a sequence"),
        (None, None, {"history": "nowhere"}, ValueError, "`history` must be a folder of records"),
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
