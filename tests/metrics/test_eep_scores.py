"""EEPScores: LEEP, its leave-one-out form and the EEP's accuracy of one pass, with their standard errors."""

import pickle

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from lightning_leep import EEPScores, LEEPMetric
from lightning_leep.functional import leep
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.metric_state import assert_unchanged, snapshot
from tests._helpers.references import (
    random_task,
    reference_conditional,
    reference_eep_accuracy,
    reference_leep,
    reference_softmax,
)

C, Z = 4, 6
NAMES = {"leep", "leave_one_out_leep", "eep_accuracy"}
ALL = NAMES | {f"{name}_standard_error" for name in NAMES}


def task(n=60, seed=0):
    logits, labels = random_task(n, Z, C, seed)
    labels[labels == 3], labels[0] = 2, 3  # a single row of class 3
    return logits.double(), labels


def filled(data, batch_size=13, **kwargs):
    metric = EEPScores(C, Z, **kwargs)
    for rows, labels in zip(data[0].split(batch_size), data[1].split(batch_size), strict=True):
        if len(labels):
            metric.update(rows, labels)
    return metric


def values_of(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def reference(logits, labels):
    """Every value from its definition, in NumPy."""
    theta, y = reference_softmax(logits), labels.numpy()
    n = len(y)
    own = (reference_conditional(theta, y, C)[y] * theta).sum(axis=1)
    counts = np.bincount(y, minlength=C)
    left_out = []
    for i in np.flatnonzero(counts[y] > 1):
        others, rows = np.delete(y, i), np.delete(theta, i, axis=0)
        joint = np.stack([rows[others == k].sum(axis=0) for k in range(C)])
        prior = np.bincount(others, minlength=C) / (n - 1)
        left_out.append(theta[i] @ ((joint[y[i]] + prior[y[i]]) / (joint.sum(axis=0) + 1)))
    eep = theta @ reference_conditional(theta, y, C).T
    scores = {
        "leep": np.log(own),
        "leave_one_out_leep": np.log(left_out),
        "eep_accuracy": (eep.argmax(axis=1) == y).astype(float),
    }
    values = {name: s.mean() for name, s in scores.items()}
    errors = {f"{name}_standard_error": s.std(ddof=1) / np.sqrt(len(s)) for name, s in scores.items()}
    return {name: pytest.approx(value, rel=1e-9) for name, value in (values | errors).items()}


@pytest.mark.parametrize("batch_size", [1, 13, 60])
def test_values_by_definition(batch_size):
    data = task()
    values = values_of(filled(data, batch_size))
    assert values == reference(*data)
    assert set(values) == ALL
    assert values["leep"] == pytest.approx(reference_leep(reference_softmax(data[0]), data[1], C), rel=1e-9)
    assert values["eep_accuracy"] == reference_eep_accuracy(reference_softmax(data[0]), data[1], C)


def test_forward_gives_the_batch_and_keeps_all():
    (logits, labels), metric = task(), EEPScores(C, Z)
    for start in (0, 30):
        batch = logits[start : start + 30], labels[start : start + 30]
        assert {name: value.item() for name, value in metric(*batch).items()} == reference(*batch)
    assert values_of(metric) == reference(logits, labels)


def test_reset_clone_pickle_merge_and_state_dict():
    first, second = task(40, 1), task(30, 2)
    metric = filled(first)
    both = tuple(torch.cat(parts) for parts in zip(first, second, strict=True))
    metric.persistent(True)
    loaded = EEPScores(C, Z)
    loaded.load_state_dict(metric.state_dict())
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric)), loaded):
        assert values_of(copy) == reference(*first)
        copy.merge_state(filled(second))
        assert values_of(copy) == reference(*both)
    metric.reset()
    metric.update(*second)
    assert values_of(metric) == reference(*second)


def test_two_passes_equal_kept_rows():
    data = task()
    metric = filled(data, keep_rows=False)
    before = snapshot(metric)
    with pytest.raises(RuntimeError, match=r"`second_pass\(\)`"):
        metric.compute()
    assert_unchanged(metric, before)
    score_batch = metric.second_pass()
    for batch in zip(data[0].split(17), data[1].split(17), strict=True):
        score_batch(*batch)
    assert metric.rows == []
    assert values_of(metric) == reference(*data)


def test_a_perfect_source():
    """One-hot and right: LEEP 0, never above it; the leave-one-out form pays for what it did not see."""
    theta, labels = torch.eye(Z)[[0, 1, 2, 3] * 25], torch.tensor([0, 1, 2, 3] * 25)
    values = values_of(filled((theta, labels), from_logits=False))
    assert (values["leep"], values["eep_accuracy"], values["leep_standard_error"]) == (0.0, 1.0, 0.0)
    # 24 other rows of the class among 99, all of them in the row's own source class: (24 + 24/99) / (24 + 1).
    assert values["leave_one_out_leep"] == pytest.approx(np.log((24 + 24 / 99) / 25), rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "unknown"),
    [
        ([], ALL),
        ([0], ALL),
        ([0, 1], {"leave_one_out_leep", "leave_one_out_leep_standard_error"}),
        ([0, 0], set()),
    ],
)
def test_too_few_rows_are_nan_one_by_one(labels, unknown):
    metric = EEPScores(C, Z)
    metric.update(torch.randn(len(labels), Z), torch.tensor(labels, dtype=torch.long))
    if unknown:
        with pytest.warns(UserWarning, match="EEPScores needs at least 2 rows to say anything"):
            values = values_of(metric)
    else:
        values = values_of(metric)
    assert {name for name, value in values.items() if np.isnan(value)} == unknown


def test_in_a_collection_with_leep():
    """Of the two, one has sums of three scores and one of one: no group, and each its own value."""
    data = task()
    collection = MetricCollection({"scores": EEPScores(C, Z), "single": LEEPMetric(C, Z)})
    for batch in zip(data[0].split(30), data[1].split(30), strict=True):
        collection.update(*batch)
    assert sorted(collection.compute_groups.values()) == [["scores"], ["single"]]
    found = {name: value.item() for name, value in collection.compute().items()}
    assert found == {"single": pytest.approx(leep(*data, C).item(), rel=1e-12), **reference(*data)}


SHARDS = {2: [(0, 60), (59, 1)], 3: [(25, 0, 35), (20, 20, 20)]}


def on_shards(rank, world_size):
    found, data = {}, task()
    for shards in SHARDS[world_size]:
        mine = tuple(t.split(list(shards))[rank] for t in data)
        metric = filled(mine)
        before = snapshot(metric)
        found[shards, "kept"] = values_of(metric)
        before["_computed"] = metric._computed
        assert_unchanged(metric, before)
        two_pass = filled(mine, keep_rows=False)
        score_batch = two_pass.second_pass()
        score_batch(*mine)
        found[shards, "two passes"] = values_of(two_pass)
    found["bytes"] = []
    for n in (40, 4000):
        metric = filled(random_task(n, Z, C, rank), batch_size=500)
        with counted_traffic() as sent:
            metric.compute()
        found["bytes"].append(sum(size for _, _, size in sent))
    return found


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_equal_one_and_send_sums(world_size):
    expected = reference(*task())
    for found in run_processes(on_shards, world_size):
        assert found.pop("bytes") == [8 * (C * Z + C + 3 * 3)] * 2
        assert all(values == expected for values in found.values())
