"""Rankings that take long: they are interrupted, run out of memory or time, and show how far they are."""

import json
from collections import Counter

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_leep import ScoringOptions, Source
from tests._helpers.small_zoo import D, Sees, make_rows, rank, zoo


class Counts(Sees):
    """A source that counts its calls, and may be interrupted."""

    def __init__(self, *columns, interrupted=False):
        super().__init__(*columns)
        self.calls, self.interrupted = 0, interrupted

    def forward(self, x):
        self.calls += 1
        if self.interrupted:
            raise KeyboardInterrupt
        return super().forward(x)


def test_interrupted_ranking_goes_on_and_scores_nothing_twice(tmp_path):
    sources = {"first": Counts(0, 1, 2), "second": Counts(0, 7, interrupted=True), "third": Counts(6, 7)}
    with pytest.raises(KeyboardInterrupt):
        rank(sources, folder=tmp_path)
    calls = sources["first"].calls
    assert calls > 0
    sources["second"].interrupted = False
    ranking = rank(sources, folder=tmp_path)
    assert (sources["first"].calls, sources["third"].calls) == (calls, calls)
    expected = rank({name: Sees(*source.columns) for name, source in sources.items()})
    for name in sources:
        assert ranking[name].scores == expected[name].scores
    assert rank(sources, folder=tmp_path) == ranking
    assert sources["third"].calls == calls


def flipped(*columns):
    """The same source with its weights in another order, so that their sum is the same."""
    source = Counts(*columns)
    source.fc.weight.data = source.fc.weight.data.flip(0)
    return source


def counted(*columns, shift=0.0):
    """A source with a buffer."""
    source = Counts(*columns)
    source.register_buffer("running_mean", torch.tensor([shift]))
    return source


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"data": make_rows(80)},
        lambda: {"data": TensorDataset(make_rows().tensors[0], make_rows().tensors[1].flip(0))},
        lambda: {"max_samples": 60},
        lambda: {"num_target_classes": 4},
        lambda: {"precision": "bf16-mixed"},
        lambda: {"source": Source(counted(0, 1))},
        lambda: {"source": Source(flipped(0, 1, 2))},
        lambda: {"source": Source(counted(0, 1, 2, shift=1.0))},
        lambda: {"source": Source(counted(0, 1, 2), options=ScoringOptions(feature_scores=False))},
        lambda: {"source": Source(counted(0, 1, 2), transform=lambda x: x)},
    ],
    ids=[
        "rows",
        "labels",
        "max_samples",
        "classes",
        "precision",
        "model",
        "weights",
        "buffers",
        "options",
        "transform",
    ],
)
def test_report_of_another_setting_is_not_used(change, tmp_path):
    rank({"a": counted(0, 1, 2)}, folder=tmp_path)
    rank({"a": (same := counted(0, 1, 2))}, folder=tmp_path)
    assert same.calls == 0
    changes = change()
    source = changes.pop("source", Source(counted(0, 1, 2)))
    data = changes.pop("data", None)
    rank({"a": source}, data, folder=tmp_path, **changes)
    assert source.model.calls > 0


@pytest.mark.parametrize("time_budget", [None, 1e4])
def test_random_state_stays_though_factories_draw_from_it(time_budget):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    rank({"a": lambda: torch.nn.Linear(D, 4), "b": lambda: torch.nn.Linear(D, 4)}, time_budget=time_budget)
    assert torch.equal(torch.get_rng_state(), before)


def test_damaged_files_in_the_folder_are_scored_again(tmp_path):
    expected = rank({"a": Sees(0, 1, 2)}, folder=tmp_path)
    (path,) = tmp_path.glob("*.json")
    values = json.loads(path.read_text())
    values["report"]["linear_probe_accuracy"] = 7
    path.write_text(json.dumps(values))
    for name, text in {"cut.json": "{", "list.json": "[1]", "other.json": "{}"}.items():
        (tmp_path / name).write_text(text)
    again = rank({"a": Sees(0, 1, 2)}, folder=tmp_path)
    assert again["a"].scores == expected["a"].scores


class Hungry(Sees):
    """A source that has memory for a few rows only, as a GPU would say it."""

    def __init__(self, most):
        super().__init__(0, 1, 2)
        self.most, self.largest = most, 0

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.largest = max(self.largest, len(x))
        return super().forward(x)


@pytest.mark.parametrize("most", [1, 40])
def test_out_of_memory_halves_the_batch_until_it_fits(most):
    source, after, rows = Hungry(most), Counts(0, 1, 2), make_rows(70)
    ranking = rank({"hungry": source, "after": after}, rows, batch_size=64)
    assert source.largest == {1: 1, 40: 32}[most]
    assert ranking["hungry"].error is None
    for name, value in rank({"good": Sees(0, 1, 2)}, rows)["good"].scores.items():
        assert ranking["hungry"].scores[name] == pytest.approx(value, abs=1e-6)
    assert after.calls == 2  # the next source has the whole batch again


def test_no_memory_for_one_row_is_an_error_of_that_source():
    ranking = rank({"hungry": Hungry(0), "good": Sees(0, 1, 2)})
    assert "out of memory" in ranking["hungry"].error
    assert ranking.best == "good"


class Clock:
    """A clock that only sources move."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        for module in ("lightning_leep.ranking.rank", "lightning_leep.ranking.passes"):
            monkeypatch.setattr(f"{module}.time.perf_counter", lambda: self.now)

    def source(self, seconds, *columns):
        clock = self

        class Slow(Sees):
            def forward(self, x):
                clock.now += seconds
                return super().forward(x)

        return Slow(*columns)


def test_time_budget_scores_the_cheapest_first_and_names_what_is_left_out(monkeypatch):
    clock = Clock(monkeypatch)
    sources = {"slow": clock.source(100.0, 0, 1, 2), "quick": clock.source(1.0, 0, 1), "middle": clock.source(5.0, 0)}
    # Two batches of each are run to see what it takes: 2 * 106 s. Then each batch of 50 rows costs its seconds.
    ranking = rank(sources, time_budget=212.0 + 3 * 1 + 3 * 5 + 50, batch_size=50)
    assert {source.name for source in ranking.sources if source.rank} == {"quick", "middle"}
    (note,) = ranking["slow"].notes
    assert "needs about 7 min" in note  # 400 s
    assert "50 s of the time budget were left" in note
    assert ranking["slow"].error is None
    assert note in str(ranking)


@pytest.mark.parametrize(
    ("budget", "said"), [(212.45, "0.4 s of the time budget were left"), (100.0, "the time budget was used up")]
)
def test_fractions_of_a_second_are_said(budget, said, monkeypatch):
    clock = Clock(monkeypatch)
    sources = {"slow": clock.source(100.0, 0), "quick": clock.source(1.0, 0), "middle": clock.source(5.0, 0)}
    ranking = rank(sources, time_budget=budget, batch_size=50)
    assert all(said in source.notes[0] for source in ranking.sources)


def test_a_folder_that_takes_no_report_is_one_note(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", f"{tmp_path}/source-{id(object())}.json")

    monkeypatch.setattr("lightning_leep.records.folder.os.replace", full)
    ranking = rank({"a": Sees(0, 1, 2), "b": Sees(0)}, folder=tmp_path)
    assert {source.rank for source in ranking.sources} == {1, 2}
    assert [note for note in ranking.notes if "No space left" in note] == [
        "Reports could not be kept: No space left on device. After an interruption they are made again."
    ]


def test_enough_time_leaves_nothing_out():
    ranking = rank({**zoo(), "broken": torch.nn.Linear(D + 1, 3)}, time_budget=600)
    assert [source.name for source in ranking.sources] == ["good", "half", "blind", "broken"]
    assert "mat1 and mat2" in ranking["broken"].error


def test_batches_that_are_too_large_to_keep_are_read_again(monkeypatch):
    monkeypatch.setattr("lightning_leep.ranking.rank.KEPT_BYTES", 1000)
    assert rank(zoo())["good"].scores == rank({"good": Sees(0, 1, 2)})["good"].scores


@pytest.mark.parametrize("time_budget", [None, 1e6])
def test_sources_that_share_a_transform_share_its_work_in_any_order(time_budget, monkeypatch):
    clock, calls, rows = Clock(monkeypatch), Counter(), make_rows(60)

    def transform(name):
        return lambda x: calls.update([name]) or x

    one, other = transform("one"), transform("other")
    sources = {
        name: Source(clock.source(seconds, 0, 1), transform=shared)
        for name, seconds, shared in (("a", 1.0, one), ("b", 2.0, other), ("c", 3.0, one), ("d", 4.0, other))
    }
    if time_budget is None:  # then sources of one transform come together: there is room for the batches of one
        monkeypatch.setattr("lightning_leep.ranking.rank.KEPT_BYTES", 4000)
    rank(sources, rows, batch_size=50, time_budget=time_budget)
    first_batches = 0 if time_budget is None else 2 * 50  # to see how long each source takes
    assert calls == {"one": 60 + first_batches, "other": 60 + first_batches}


@pytest.mark.parametrize("has_rich", [True, False])
def test_progress_goes_to_the_error_stream(has_rich, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    if not has_rich:
        monkeypatch.setitem(__import__("sys").modules, "rich.progress", None)
    rank({"resnet [bold]\n": Sees(0, 1, 2), "vit": Sees(0)}, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("resnet [bold]\\n" in err) if has_rich else ("Scoring the source model" in err)
