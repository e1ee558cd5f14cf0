"""A scoring pass on real processes: one report for all, and a fault on one of them is a fault on all."""

import dataclasses
import math
import time
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from itertools import chain

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import score
from lightning_leep.metrics import linear_probe
from lightning_leep.scoring import collector
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.scoring_pass import BATCH, C, D, N, Source, Z, dataset, layer_values

pytestmark = pytest.mark.distributed

#: Rows of each rank, by number of processes: uneven, and one has none.
SHARDS = {2: [(N, 0), (30, N - 30)], 3: [(50, 0, N - 50), (0, 1, N - 1)]}
WAYS = {
    "device": {},
    "second_pass": {"memory": "second_pass"},
    "nleep": {"nleep": True},
    "logits": {"logits": True},
}
PERMUTATIONS = 40
#: The order of single rows is that of processes that take turns (test_row_outcomes.py); these shards do not.
NOT_COMPARED = {"seconds", "samples_per_second", "joint", "layers", "linear_probe_rows", "multi_layer_probe_rows"}
OF_SHUFFLES = {"permutation_mean", "permutation_standard_deviation"}


class Exact(Source):
    """Its outputs are the same to the last bit however the rows are batched: eighths in float64 do not round."""

    def __init__(self) -> None:
        super().__init__(torch.float64)
        for parameter in self.parameters():
            parameter.data = (8 * parameter.data).round() / 8

    def forward(self, x):
        return self.fc(self.backbone((8 * x.double()).round() / 8).relu())


def source_of(logits=False):
    source = Exact()
    return (lambda x: source(x).detach()) if logits else source


def run(rows, logits=False, **kwargs):
    data = TensorDataset(*rows)
    loader = DataLoader(data, batch_size=BATCH) if len(data) else []
    return score(source_of(logits), loader, C, progress=False, num_permutations=PERMUTATIONS, **kwargs)


def split(shards, rank):
    return tuple(tensor.split(list(shards))[rank] for tensor in dataset().tensors)


def fields_of(report):
    names = [f.name for f in dataclasses.fields(report) if f.name not in NOT_COMPARED]
    return {name: getattr(report, name) for name in names} | layer_values(report)


def reports(rank, world_size):
    found = {}
    for shards in SHARDS[world_size]:
        for way, kwargs in WAYS.items():
            report = run(split(shards, rank), **kwargs)
            found[shards, way] = fields_of(report), report.joint
    return found


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_equal_one(world_size):
    """Every field but the times; those of the shuffles, which are others, within their own error."""
    by_rank = run_processes(reports, world_size)
    for way, kwargs in WAYS.items():
        alone = run(dataset().tensors, **kwargs)
        expected = fields_of(alone)
        for shards in SHARDS[world_size]:
            everyones = [found[shards, way] for found in by_rank]
            for values, joint in everyones:
                assert str(values) == str(everyones[0][0])  # to the last bit, on every rank; NaN is NaN
                torch.testing.assert_close(joint, alone.joint, rtol=1e-12, atol=1e-12)
                for name, value in expected.items():
                    compare(name, values[name], value, expected, way)


def compare(name, found, value, expected, way):
    if name in OF_SHUFFLES and value is not None:
        spread = expected["permutation_standard_deviation"] / math.sqrt(PERMUTATIONS)
        assert found == pytest.approx(value, abs=6 * spread), name
    elif isinstance(value, float):
        assert found == pytest.approx(value, rel=1e-8, abs=1e-9, nan_ok=True), (way, name)
    else:
        assert found == value, (way, name)


def test_a_class_on_each_process_is_no_noise():
    """Contiguous shards of sorted classes: labels are shuffled among the rows of all, not of each."""
    for report in run_processes(sorted_classes, 2):
        assert report["permutation_p_value"] == pytest.approx(1 / (1 + PERMUTATIONS))
        assert not any("noise" in note for note in report["notes"])


def sorted_classes(rank, world_size):
    images, labels = dataset().tensors
    mine = (labels < 2) == (rank == 0)
    return fields_of(run((images[mine], labels[mine])))


def test_number_of_classes_is_the_largest_of_all_processes():
    """The first process has the classes 0 and 1 alone."""
    images, labels = dataset().tensors
    alone = fields_of(score(source_of(), [(images, labels)], progress=False))
    for by_memory in run_processes(found_classes, 2):
        for report in by_memory:
            assert report["num_target_classes"] == int(labels.max()) + 1
            assert report["leep"] == pytest.approx(alone["leep"], abs=1e-9)
            assert any("was found from the labels" in note for note in report["notes"])


def found_classes(rank, world_size):
    images, labels = dataset().tensors
    mine = (labels < 2) == (rank == 0)
    batches = [(images[mine], labels[mine])]
    return [fields_of(score(source_of(), batches, progress=False, memory=way)) for way in ("cpu", "second_pass")]


# -- traffic -----------------------------------------------------------------------------------------------------------


def traffic(rank, world_size):
    linear_probe.MAX_ROW_OUTCOMES = 0  # the outcomes of single rows are sent, for up to so many rows
    collector.NearestNeighbourAccuracy = partial(collector.NearestNeighbourAccuracy, max_rows=2 * C)  # as is its sample
    sizes = {}
    for way, kwargs in WAYS.items():
        if way == "nleep":  # its metric has tests of its own
            continue
        sizes[way] = []
        for n in (20, 300):
            with counted_traffic() as sent:
                run(tuple(tensor[rank::2] for tensor in dataset(2 * n).tensors), **kwargs)
            sizes[way].append(sum(size for _, _, size in sent))
    return sizes


def test_traffic_does_not_grow_with_the_rows():
    for sizes in run_processes(traffic, 2):
        for way, (few, many) in sizes.items():
            assert few == many, way


# -- faults ------------------------------------------------------------------------------------------------------------


class Broken(nn.Module):
    """A source that fails at a call, or returns another number of classes."""

    def __init__(self, fails_at=None, num_classes=Z) -> None:
        super().__init__()
        self.fc, self.fails_at, self.calls = nn.Linear(5, num_classes), fails_at, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.fails_at:
            raise ZeroDivisionError(f"call {self.calls}")
        return self.fc(x)


def attempt(source, loader, num_target_classes=C, **kwargs):
    """What a pass raises, and that it raises soon."""
    start = time.perf_counter()
    try:
        score(source, loader, num_target_classes, **{"progress": False, **kwargs})
    except Exception as error:
        return type(error).__name__, str(error), time.perf_counter() - start < 20
    return None


def faults(rank, world_size):
    data = TensorDataset(*split({2: (60, 50), 3: (50, 20, 40)}[world_size], rank))
    loader, found = DataLoader(data, batch_size=10), {}
    mine = rank == 1
    for call in (1, 2):  # at the first batch, which tells the sizes, and later
        found["call", call] = attempt(Broken(call if mine else None), loader)
    calls = len(loader) + 1  # the first batch of the second pass
    found["second pass"] = attempt(Broken(calls if mine else None), loader, memory="second_pass")
    found["classes"] = attempt(Broken(num_classes=Z + mine), loader)
    found["classes of a later batch"] = attempt(lambda x: torch.zeros(len(x), Z + (mine and len(x) < 8)), uneven(data))
    bad = TensorDataset(data.tensors[0], data.tensors[1] + (C if mine else 0))
    found["labels"] = attempt(Broken(), DataLoader(bad, batch_size=10))
    found["iterator"] = attempt(Broken(), iter(loader) if mine else loader, memory="second_pass")
    found["no rows"] = attempt(Broken(), [])
    found["one row"] = attempt(Broken(), DataLoader(data, batch_size=1, sampler=[0]) if mine else [])
    found["afterwards"] = attempt(Broken(), loader)
    return found


def uneven(data):
    return [data[:10], data[10:17]]


def different(what, first, second):
    return f"{what} must be the same on all processes, got {first!r} on process 0 and {second!r} on process 1."


#: Arguments, and the values of process 0 and of process 1.
DISAGREEMENTS = {
    "num_target_classes": (C, C + 1),
    "ignore_index": (None, -100),
    "from_logits": (True, False),
    "head": (None, "fc"),
    "memory": ("device", "second_pass"),
    "num_permutations": (20, 0),
    "nleep": (False, True),
}


def disagree(rank, world_size):
    loader = DataLoader(TensorDataset(*split((N - 30, 30), rank)), batch_size=10)
    found = {name: attempt(Broken(), loader, **{name: values[rank]}) for name, values in DISAGREEMENTS.items()}
    found["no data on one"] = attempt(Broken(), [] if rank else loader, num_target_classes=C + rank)
    # What only one process can see is wrong is raised there, and the other one does not wait.
    found["impossible"] = attempt(Broken(), loader, num_target_classes=C * rank)
    found["no such head"] = attempt(Broken(), loader, head="nowhere" if rank == 0 else None)
    found["own functions"] = attempt(Broken(), loader, split_batch=lambda batch: batch)
    return found


def test_processes_that_are_told_different_things():
    """The same error on all processes, at once."""
    for rank, found in enumerate(run_processes(disagree, 2)):
        assert found.pop("own functions") is None
        assert all(soon for _, _, soon in found.values())
        for name, (first, second) in DISAGREEMENTS.items():
            assert found[name][:2] == ("ValueError", different(f"`{name}`", first, second))
        assert found["no data on one"][:2] == ("ValueError", different("`num_target_classes`", C, C + 1))
        kinds = {found[name][0] for name in ("impossible", "no such head")}
        assert kinds == {"OtherProcessError" if rank else "ValueError"}


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_fault_on_one_process_is_raised_on_all(world_size):
    results = run_processes(faults, world_size)
    for rank, found in enumerate(results):
        assert found.pop("afterwards") is None  # the group is in step again
        assert all(soon for _, _, soon in found.values())
        kinds = {name: kind for name, (kind, _, _) in found.items()}
        own = {
            ("call", 1): "ZeroDivisionError",
            ("call", 2): "ZeroDivisionError",
            "second pass": "ZeroDivisionError",
            "classes of a later batch": "ValueError",
            "labels": "ValueError",
            "iterator": "ValueError",
        }
        # What every process can see for itself is the same error on all of them.
        shared = dict.fromkeys(("classes", "no rows", "one row"), "ValueError")
        assert kinds == shared | (own if rank == 1 else dict.fromkeys(own, "OtherProcessError"))
        messages = {name: message for name, (_, message, _) in found.items()}
        assert messages["classes"] == different("The number of classes that `source` returns", Z, Z + 1)
        assert "at least one batch" in messages["no rows"]
        assert "at least 2 labelled rows, got 1" in messages["one row"]
        for name in own:
            assert rank == 1 or messages[name] == "Process 1 failed; see the error there."
    assert "call 2" in results[1]["call", 2][1]
    assert "an iterator" in results[1]["iterator"][1]


def overflow_on_one(rank, world_size):
    """A feature of process 0 is infinite, while the outputs are not."""
    shard = split((N - 30, 30), rank)
    images = shard[0].index_fill(0, torch.tensor([3]), torch.inf) if rank == 0 else shard[0]
    source = nn.Sequential(nn.Linear(5, D), nn.Hardtanh(), nn.Linear(D, Z))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        source.apply(lambda module: module.reset_parameters() if isinstance(module, nn.Linear) else None)
    source[0].weight.data.abs_()  # so that an infinite row stays infinite and no NaN
    loader = DataLoader(TensorDataset(images, shard[1]), batch_size=BATCH)
    return [
        fields_of(score(source, loader, C, progress=False, head="0", **kwargs))
        for kwargs in ({"nleep": True}, {"memory": "second_pass"})
    ]


def test_feature_of_one_process_that_is_not_finite():
    for found in chain.from_iterable(run_processes(overflow_on_one, 2)):
        names = ("h_score", "h_score_unshrunk", "log_me", "nleep", "linear_probe_accuracy")
        assert [found[name] for name in names] == [None] * len(names)
        assert all(math.isfinite(found[name]) for name in ("leep", "leave_one_out_leep", "nce", "eep_accuracy"))
        assert any("some features are NaN, infinite" in note for note in found["notes"])


def changing(rank, world_size):
    """Another image on process 1 in the second reading."""

    class Changing(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image + torch.randn_like(image) * (rank == 1), label

    return attempt(Source(), DataLoader(Changing(*split((N - 30, 30), rank)), batch_size=BATCH), memory="second_pass")


def test_other_rows_of_one_process_in_the_second_pass():
    for kind, message, _ in run_processes(changing, 2):
        assert (kind, "rows whose sums differ" in message) == ("ValueError", True)


def missing_scikit_learn(rank, world_size):
    import sys

    if rank == 1:
        sys.modules["sklearn"] = sys.modules["sklearn.mixture"] = None
    return attempt(Source(), DataLoader(dataset(), batch_size=BATCH), nleep=True)


def test_scikit_learn_missing_on_one_process():
    results = run_processes(missing_scikit_learn, 2)
    assert [kind for kind, _, _ in results] == ["OtherProcessError", "ModuleNotFoundError"]


def features_differ(rank, world_size):
    """The head of one process gives features for each row, that of the other does not."""

    class Doubled(Source):
        def forward(self, x):
            hidden = self.backbone(x.to(self.dtype)).tanh()
            return self.fc(hidden.repeat(2, 1))[: len(x)] if rank == 1 else self.fc(hidden)

    images, labels = (tensor[rank::2] for tensor in dataset().tensors)
    report = score(Doubled(), DataLoader(TensorDataset(images, labels), batch_size=BATCH), C, progress=False)
    return report.feature_layer, report.num_features


def test_processes_agree_on_the_features():
    assert run_processes(features_differ, 2) == [("(logits)", Z)] * 2
    assert D != Z


def layers_differ(rank, world_size):
    """Heads of other names give features of the same size."""
    source = nn.Sequential()
    source.add_module("body", nn.Linear(5, D))
    source.add_module("fc" if rank else "head", nn.Linear(D, Z))
    return score(source, [tuple(tensor[rank::2] for tensor in dataset().tensors)], C, progress=False).feature_layer


def test_features_of_different_layers_are_not_pooled():
    assert run_processes(layers_differ, 2) == ["(logits)"] * 2


def shows_progress(rank, world_size):
    with redirect_stderr(StringIO()) as shown:
        assert attempt(Source(), DataLoader(dataset(), batch_size=BATCH), progress=True) is None
    return "Scoring the source model" in shown.getvalue()


def test_the_first_process_shows_the_progress():
    assert run_processes(shows_progress, 2) == [True, False]
