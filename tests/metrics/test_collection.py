"""All scores in one MetricCollection: what is shared is updated once, and every value is that of the metric alone."""

import copy
import functools
import pickle

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_leep import (
    EEPAccuracy,
    HScore,
    LEEPMetric,
    LinearProbeAccuracy,
    LogME,
    NegativeConditionalEntropy,
    transferability_metrics,
)
from tests._helpers.distributed import run_processes

C, Z, D = 3, 7, 5
NAMES = {"leep", "leave_one_out_leep", "eep_accuracy", "nce", "linear_probe_accuracy", "h_score", "log_me"}


def batch_of(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(C, (n,), generator=generator)
    preds = 2 * torch.randn(n, Z, generator=generator, dtype=torch.float64)
    preds[torch.arange(n), target] += 2
    features = torch.randn(n, D, generator=generator, dtype=torch.float64)
    features[torch.arange(n), target] += 2
    return {"preds": preds, "features": features, "target": target}


BATCHES = [batch_of(n, n) for n in (30, 17, 24)]


def singles(**kwargs):
    """The same metrics, each for itself."""
    outputs, features = (C, Z), (C, D)
    return {
        "leep": LEEPMetric(*outputs, **kwargs),
        "leave_one_out_leep": LEEPMetric(*outputs, leave_one_out=True, **kwargs),
        "eep_accuracy": EEPAccuracy(*outputs, **kwargs),
        "nce": NegativeConditionalEntropy(*outputs, **kwargs),
        "linear_probe_accuracy": LinearProbeAccuracy(*features, **kwargs),
        "h_score": HScore(*features, **kwargs),
        "log_me": LogME(*features, **kwargs),
    }


def expected(*batches, prefix="", **kwargs):
    values = {}
    for name, metric in singles(**kwargs).items():
        for batch in batches:
            metric.update(*batch_arguments(metric, batch))
        values[prefix + name] = pytest.approx(metric.compute().item(), rel=1e-9)
    return values


def batch_arguments(metric, batch):
    of_features = isinstance(metric, LinearProbeAccuracy | HScore | LogME)
    return batch["features" if of_features else "preds"], batch["target"]


def collection_of(*batches, **kwargs):
    collection = transferability_metrics(C, Z, D, **kwargs)
    for batch in batches:
        collection.update(**batch)
    return collection


def values_of(values):
    return {name: value.item() for name, value in values.items()}


def test_values_are_those_of_the_metrics_alone():
    collection = collection_of(*BATCHES)
    values = values_of(collection.compute())
    assert set(values) == NAMES
    assert values == expected(*BATCHES)


def test_one_joint_and_one_set_of_moments(monkeypatch):
    """Every batch goes through three updates, the first included, and no tensor is held twice."""
    updated = []
    for cls in {type(metric) for metric in singles().values()}:

        @functools.wraps(cls.update)  # the collection picks arguments by the signature
        def counting(self, *args, _update=cls.update, **kwargs):
            updated.append(type(self).__name__)
            return _update(self, *args, **kwargs)

        monkeypatch.setattr(cls, "update", counting)
    collection = collection_of(*BATCHES)
    assert sorted(set(updated)) == ["LEEPMetric", "LinearProbeAccuracy", "NegativeConditionalEntropy"]
    assert len(updated) == 3 * len(BATCHES)
    members = dict(collection.items(copy_state=False))
    outputs = [members[name] for name in ("leep", "leave_one_out_leep", "eep_accuracy")]
    features = [members[name] for name in ("linear_probe_accuracy", "h_score", "log_me")]
    assert all(metric.joint is outputs[0].joint and metric.rows is outputs[0].rows for metric in outputs)
    assert all(metric.scatter is features[0].scatter for metric in features)
    assert all(metric.update_count == len(BATCHES) for metric in members.values())
    held = {id(t): len(t) for metric in members.values() for t in getattr(metric, "rows", [])}
    assert sum(held.values()) == 2 * sum(len(batch["target"]) for batch in BATCHES)


def test_probabilities_ignored_labels_and_prefix():
    batches = []
    for batch in BATCHES:
        target = batch["target"].clone()
        target[::4] = -100
        batches.append(batch | {"target": target})
    collection = collection_of(*batches, ignore_index=-100, prefix="val/", postfix="!")
    values = values_of(collection.compute())
    assert {f"{name}!": value for name, value in expected(*batches, prefix="val/", ignore_index=-100).items()} == values
    probabilities = [batch | {"preds": batch["preds"].softmax(1)} for batch in BATCHES]
    assert values_of(collection_of(*probabilities, from_logits=False).compute()) == expected(*BATCHES)


def test_forward_between_updates():
    collection = collection_of()
    assert values_of(collection(**BATCHES[0])) == expected(BATCHES[0])
    collection.update(**BATCHES[1])
    assert values_of(collection(**BATCHES[2])) == expected(BATCHES[2])
    assert values_of(collection.compute()) == expected(*BATCHES)
    collection.update(**BATCHES[1])
    assert values_of(collection.compute()) == expected(*BATCHES, BATCHES[1])


def test_reset_lets_go_of_the_rows_of_every_member():
    collection = collection_of(*BATCHES)
    collection.compute()
    collection.reset()
    for metric in collection.values(copy_state=False):
        assert not metric.update_called
        assert getattr(metric, "rows", []) == []
    collection.update(**BATCHES[1])
    assert values_of(collection.compute()) == expected(BATCHES[1])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c)), MetricCollection.clone])
def test_copies_go_their_own_way(duplicate):
    collection = collection_of(*BATCHES[:2])
    copied = duplicate(collection)
    copied.update(**BATCHES[2])
    assert values_of(copied.compute()) == expected(*BATCHES)
    assert values_of(collection.compute()) == expected(*BATCHES[:2])


def test_clone_with_a_prefix():
    collection = collection_of()
    stages = {stage: collection.clone(prefix=f"{stage}/") for stage in ("train", "val")}
    for stage, batches in (("train", BATCHES[:2]), ("val", BATCHES[2:])):
        for batch in batches:
            stages[stage].update(**batch)
        assert values_of(stages[stage].compute()) == expected(*batches, prefix=f"{stage}/")


def test_state_dict():
    collection, loaded = collection_of(*BATCHES[:2]), collection_of()
    collection.persistent(True)
    loaded.load_state_dict(collection.state_dict())
    assert values_of(loaded.compute()) == expected(*BATCHES[:2])
    loaded.update(**BATCHES[2])
    assert values_of(loaded.compute()) == expected(*BATCHES)


def test_other_settings_are_refused_by_every_member():
    collection, other = collection_of(*BATCHES), collection_of(ignore_index=-1)
    collection.persistent(True)
    with pytest.raises(RuntimeError, match="other settings") as caught:
        other.load_state_dict(collection.state_dict())
    assert str(caught.value).count("other settings") == len(NAMES)


@pytest.mark.parametrize("method", ["update", "forward"])
@pytest.mark.parametrize("bad", ["preds", "features", "target"])
def test_bad_batch(method, bad):
    collection = collection_of(BATCHES[0])
    batch = dict(BATCHES[1])
    batch[bad] = batch[bad][:-1]
    with pytest.raises(ValueError, match="`target` must have shape"):
        getattr(collection, method)(**batch)


def test_a_member_taken_out_is_a_copy():
    collection = collection_of(*BATCHES[:2])
    taken = collection["h_score"]
    taken.update(BATCHES[2]["features"], BATCHES[2]["target"])
    assert taken.compute().item() == expected(*BATCHES)["h_score"]
    collection.update(**BATCHES[2])
    assert values_of(collection.compute()) == expected(*BATCHES)


def test_moves_with_the_module_around_it():
    module = torch.nn.ModuleDict({"metrics": collection_of(*BATCHES[:2])})
    module.to(torch.bfloat16)
    module["metrics"].update(**BATCHES[2])
    assert values_of(module["metrics"].compute()) == expected(*BATCHES)


SHARDS = {2: [(0, 71), (40, 31)], 3: [(30, 0, 41)]}


def whole():
    return {name: torch.cat([batch[name] for batch in BATCHES]) for name in BATCHES[0]}


def on_shards(rank, world_size):
    found = {}
    for shards in SHARDS[world_size]:
        mine = {name: value.split(list(shards))[rank] for name, value in whole().items()}
        collection = collection_of(mine)
        found[shards] = values_of(collection.compute())
        collection.update(**mine)  # states are local again
        found[shards, "twice"] = values_of(collection.compute())
    return found


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_equal_one(world_size):
    once, twice = expected(whole()), expected(whole(), whole())
    for found in run_processes(on_shards, world_size):
        for key, values in found.items():
            assert values == (twice if key[-1] == "twice" else once)
