"""All scores in one MetricCollection: what is shared is updated once, and every value is that of the metric alone."""

import functools
import pickle

import pytest
import torch
from torchmetrics import Metric, MetricCollection

from lightning_leep import transferability_metrics
from tests._helpers.distributed import run_processes
from tests._helpers.metric_cases import CASES, C, D, Z, batch, build, expected, filled, values_of

#: The scores of the collection, by the names of the cases.
NAMES = {
    "leep": "leep",
    "leave_one_out_leep": "leave_one_out_leep",
    "eep_accuracy": "eep_accuracy",
    "nce": "nce",
    "linear_probe": "linear_probe_accuracy",
    "h_score": "h_score",
    "log_me": "log_me",
    "nearest_neighbours": "nearest_neighbour_accuracy",
}


def batch_of(n, seed):
    """Outputs and features of the same rows."""
    features, target = batch("h_score", n, seed)
    preds, _ = batch("leep", n, seed)
    return {"preds": preds + 2 * torch.eye(C, Z)[target], "features": features, "target": target}


BATCHES = [batch_of(n, n) for n in (30, 17, 24)]


def answers(*batches, prefix="", **kwargs):
    """The value of each metric alone."""
    values = {}
    for name, key in NAMES.items():
        of_features = CASES[name].of_features
        data = [(b["features" if of_features else "preds"], b["target"]) for b in batches]
        value = filled(name, *data, **kwargs).compute().item() if kwargs else expected(name, *data)["value"]
        values[prefix + key] = pytest.approx(value, rel=1e-9) if kwargs else value
    return values


def collection_of(*batches, **kwargs):
    collection = transferability_metrics(C, Z, D, **kwargs)
    for data in batches:
        collection.update(**data)
    return collection


def test_one_joint_and_one_set_of_moments(monkeypatch):
    """Every batch goes through four updates, the first included, and no tensor is held twice."""
    updated = []
    for cls in {type(build(name)) for name in NAMES}:

        @functools.wraps(cls.update)  # the collection picks arguments by the signature
        def counting(self, *args, _update=cls.update, **kwargs):
            updated.append(type(self).__name__)
            return _update(self, *args, **kwargs)

        monkeypatch.setattr(cls, "update", counting)
    collection = collection_of(*BATCHES)
    wanted = ["LEEPMetric", "LinearProbeAccuracy", "NearestNeighbourAccuracy", "NegativeConditionalEntropy"]
    assert sorted(set(updated)) == wanted
    assert len(updated) == 4 * len(BATCHES)
    assert values_of(collection.compute()) == answers(*BATCHES)
    members = dict(collection.items(copy_state=False))
    assert all(metric.update_count == len(BATCHES) for metric in members.values())
    held = {t.data_ptr(): len(t) for metric in members.values() for t in getattr(metric, "rows", [])}
    assert sum(held.values()) == 2 * sum(len(data["target"]) for data in BATCHES)
    scatters = {id(members[name].scatter) for name in ("linear_probe_accuracy", "h_score", "log_me")}
    assert len(scatters) == 1


def test_probabilities_ignored_labels_and_prefix():
    marked = [
        data | {"target": data["target"].where(torch.arange(len(data["target"])) % 4 > 0, -100)} for data in BATCHES
    ]
    collection = collection_of(*marked, ignore_index=-100, prefix="val/", postfix="!")
    wanted = answers(*marked, prefix="val/", ignore_index=-100)
    assert values_of(collection.compute()) == {f"{name}!": value for name, value in wanted.items()}
    probabilities = [data | {"preds": data["preds"].softmax(1)} for data in BATCHES]
    assert values_of(collection_of(*probabilities, from_logits=False).compute()) == answers(*BATCHES)


def test_forward_between_updates_and_reset():
    collection = collection_of()
    assert values_of(collection(**BATCHES[0])) == answers(BATCHES[0])
    collection.update(**BATCHES[1])
    assert values_of(collection(**BATCHES[2])) == answers(BATCHES[2])
    assert values_of(collection.compute()) == answers(*BATCHES)
    collection.reset()
    assert all(getattr(metric, "rows", []) == [] for metric in collection.values(copy_state=False))
    collection.update(**BATCHES[1])
    assert values_of(collection.compute()) == answers(BATCHES[1])


@pytest.mark.parametrize("duplicate", [lambda c: pickle.loads(pickle.dumps(c)), MetricCollection.clone])
def test_copies_go_their_own_way(duplicate):
    collection = collection_of(*BATCHES[:2])
    copied = duplicate(collection)
    copied.update(**BATCHES[2])
    assert values_of(copied.compute()) == answers(*BATCHES)
    assert values_of(collection.compute()) == answers(*BATCHES[:2])


def test_state_dict():
    collection, loaded, other = collection_of(*BATCHES[:2]), collection_of(), collection_of(ignore_index=-1)
    collection.persistent(True)
    loaded.load_state_dict(collection.state_dict())
    loaded.update(**BATCHES[2])
    assert values_of(loaded.compute()) == answers(*BATCHES)
    with pytest.raises(RuntimeError, match="other settings") as caught:
        other.load_state_dict(collection.state_dict())
    assert str(caught.value).count("other settings") == len(NAMES)


def whole():
    return {name: torch.cat([data[name] for data in BATCHES]) for name in BATCHES[0]}


def on_shards(rank, world_size):
    mine = {name: value.split((30, 0, 41))[rank] for name, value in whole().items()}
    collection = collection_of(mine)
    once = values_of(collection.compute())
    collection.update(**mine)  # states are local again
    return once, values_of(collection.compute())


@pytest.mark.distributed
def test_processes_equal_one():
    once, twice = answers(whole()), answers(whole(), whole())
    assert run_processes(on_shards, 3) == [(once, twice)] * 3


@pytest.mark.parametrize(("method", "wrong"), [("update", "features"), ("forward", "preds"), ("update", "target")])
def test_a_batch_that_one_metric_refuses_counts_for_none(method, wrong):
    collection = collection_of(BATCHES[0])
    collection.compute()
    rows = BATCHES[1][wrong]
    refused = BATCHES[1] | {wrong: rows + 7 if wrong == "target" else torch.full_like(rows, torch.nan)}
    with pytest.raises(ValueError, match=r"finite|target"):
        getattr(collection, method)(**refused)
    assert values_of(collection.compute()) == answers(BATCHES[0])
    collection.update(**BATCHES[2])
    assert values_of(collection.compute()) == answers(BATCHES[0], BATCHES[2])


class KeepsBeforeItLooks(Metric):
    """A metric of the user's: it appends a batch to its list and then refuses three rows."""

    def __init__(self):
        super().__init__()
        self.add_state("seen", [], dist_reduce_fx="cat")

    def update(self, target):
        self.seen.append(target)
        if len(target) == 3:
            raise ValueError("three rows")

    def compute(self):
        return torch.cat(self.seen)


def test_a_refused_batch_also_leaves_the_lists_of_a_users_metric():
    metrics = transferability_metrics(2, 3, 4)
    metrics.add_metrics({"users": KeepsBeforeItLooks()})
    for size in (8, 3, 8):
        rows = {"preds": torch.randn(size, 3), "features": torch.randn(size, 4), "target": torch.arange(size) % 2}
        if size == 3:
            with pytest.raises(ValueError, match="three rows"):
                metrics.update(**rows)
        else:
            metrics.update(**rows)
    assert len(metrics["users"].seen) == 2
    assert int(metrics["leep"].class_counts.sum()) == 16
