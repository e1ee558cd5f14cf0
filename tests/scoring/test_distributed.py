"""A scoring pass on real processes: one report for all, from uneven shards, and no traffic that grows with the rows."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import score, score_outputs
from lightning_leep.metrics import linear_probe
from lightning_leep.scoring import collector
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.scoring_pass import BATCH, C, N, Source, dataset, layer_values

pytestmark = pytest.mark.distributed

WAYS = {
    "device": {},
    "second_pass": {"memory": "second_pass"},
    "nleep": {"nleep": True},
    "logits": {"logits": True},
}
#: Rows of each process, by number of processes, and the ways that are tried: uneven, and one has none.
SHARDS = {
    2: {(N, 0): ["device", "second_pass"], (30, N - 30): ["nleep", "logits"]},
    3: {(50, 0, N - 50): ["nleep", "logits"], (0, 1, N - 1): ["device", "second_pass"]},
}
PERMUTATIONS = 19
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
    """The report of each way and shards; on two processes what the tests below look at, in the same start."""
    found = {}
    for shards, ways in SHARDS[world_size].items():
        for way in ways:
            report = run(split(shards, rank), **WAYS[way])
            found[way] = fields_of(report), report.joint
    return (found, of_classes_apart(rank), of_a_damaged_layer(rank), traffic(rank)) if world_size == 2 else (found,)


@pytest.fixture(scope="module")
def on_two():
    return run_processes(reports, 2, timeout=150)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_equal_one(world_size, request):
    """Every field but the times; those of the shuffles, which are others, within their own error."""
    by_rank = request.getfixturevalue("on_two") if world_size == 2 else run_processes(reports, 3)
    for way, kwargs in WAYS.items():
        alone = run(dataset().tensors, **kwargs)
        expected = fields_of(alone)
        everyones = [found[way] for found, *_ in by_rank]
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


def of_classes_apart(rank):
    """The reports with C stated, and with C found from the labels in two ways."""
    images, labels = dataset().tensors
    mine = (labels < 2) == (rank == 0)
    rows = images[mine], labels[mine]
    found = [fields_of(score(source_of(), [rows], progress=False, memory=way)) for way in ("cpu", "second_pass")]
    return fields_of(run(rows)), found


def test_a_class_on_each_process(on_two):
    """Contiguous shards of sorted classes are no noise: labels are shuffled among the rows of all, not of each.

    The number of classes is the largest of all processes, though the first has the classes 0 and 1 alone.
    """
    images, labels = dataset().tensors
    alone = fields_of(score(source_of(), [(images, labels)], progress=False))
    for _, (report, by_memory), *_ in on_two:
        assert report["permutation_p_value"] == pytest.approx(1 / (1 + PERMUTATIONS))
        assert not any("noise" in note for note in report["notes"])
        for found in by_memory:
            assert found["num_target_classes"] == int(labels.max()) + 1
            assert found["leep"] == pytest.approx(alone["leep"], abs=1e-9)
            assert any("was found from the labels" in note for note in found["notes"])


def of_a_damaged_layer(rank):
    """Names of the layers and notes, where the second layer is NaN on one process."""
    x, y = split((30, N - 30), rank)
    layers = {"good": x[:, :2], "bad": x[:, 1:3] * (torch.nan if rank else 1.0)}
    report = score_outputs(x, y, C, features=x, layers=layers)
    return [(layer.name, layer.probe_accuracy) for layer in report.layers], report.notes


def test_a_layer_that_is_nan_on_one_process_is_left_out_on_all(on_two):
    (layers, notes), others = on_two[0][2], on_two[1][2]
    assert (layers, notes) == others
    assert [name for name, _ in layers] == ["good", "head input"]
    assert any("no scores of the layer 'bad'" in note for note in notes)


def traffic(rank):
    """Bytes that are sent for few and for many rows. It runs last, as it changes what is kept of single rows."""
    linear_probe.MAX_ROW_OUTCOMES = 0  # the outcomes of single rows are sent, for up to so many rows
    collector.NearestNeighbourAccuracy = partial(collector.NearestNeighbourAccuracy, max_rows=2 * C)  # as is its sample
    sizes = {}
    for way in ("device", "second_pass", "logits"):  # the metric of N-LEEP has tests of its own
        sizes[way] = []
        for n in (20, 100):
            with counted_traffic() as sent:
                run(tuple(tensor[rank::2] for tensor in dataset(2 * n).tensors), **WAYS[way])
            sizes[way].append(sum(size for _, _, size in sent))
    return sizes


def test_traffic_does_not_grow_with_the_rows(on_two):
    for *_, sizes in on_two:
        for way, (few, many) in sizes.items():
            assert few == many, way
