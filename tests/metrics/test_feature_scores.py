"""FeatureScores: every score of features from one state, each the value of its function."""

import pickle

import pytest
import torch

from lightning_leep import FeatureScores
from lightning_leep.functional import h_score, linear_probe, log_me
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.metric_state import assert_unchanged, snapshot

C, D = 3, 5


def rows(n=80, seed=0, mean=2.0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(C, (n,), generator=generator)
    centres = torch.randn(C, D, generator=generator, dtype=torch.float64)
    return torch.randn(n, D, generator=generator, dtype=torch.float64) + centres[target] + mean, target


def filled(data, batch_size=23, **kwargs):
    metric = FeatureScores(C, D, **kwargs)
    for batch in zip(data[0].split(batch_size), data[1].split(batch_size), strict=True):
        metric.update(*batch)
    return metric


def values_of(metric):
    return {name: value.tolist() for name, value in metric.compute().items()}


def expected(features, target):
    probe = linear_probe(features, target, C)
    values = {
        "h_score": h_score(features, target, C),
        "h_score_unshrunk": h_score(features, target, C, shrinkage=False),
        "log_me": log_me(features, target, C),
        "linear_probe_accuracy": probe.accuracy,
        "linear_probe_accuracy_standard_error": probe.standard_error,
        "linear_probe_balanced_accuracy": probe.balanced_accuracy,
        "linear_probe_class_accuracy": probe.class_accuracy,
        "linear_probe_log_likelihood": probe.log_likelihood,
        "linear_probe_samples": probe.num_rows,
        "linear_probe_shrinkage": probe.shrinkage,
    }
    return {name: pytest.approx(value.tolist(), rel=1e-8, nan_ok=True) for name, value in values.items()}


@pytest.mark.parametrize("batch_size", [1, 23, 80])
def test_batches_equal_the_functions_on_all_rows(batch_size):
    assert values_of(filled(rows(), batch_size)) == expected(*rows())


def test_dense_features_and_ignored_labels():
    features, target = rows(96)
    ignored = target.clone()
    ignored[::3] = -100
    dense = features.reshape(4, 24, D).movedim(2, 1), ignored.reshape(4, 24)
    kept = ignored != -100
    assert values_of(filled(dense, 1, ignore_index=-100)) == expected(features[kept], target[kept])


def test_forward_gives_the_batch_and_keeps_all():
    (features, target), metric = rows(), FeatureScores(C, D)
    for start in (0, 40):
        batch = features[start : start + 40], target[start : start + 40]
        assert {name: value.tolist() for name, value in metric(*batch).items()} == expected(*batch)
    assert values_of(metric) == expected(features, target)


def test_reset_clone_pickle_merge_and_state_dict():
    first, second = rows(50, 1), rows(40, 2)
    metric = filled(first)
    metric.persistent(True)
    loaded = FeatureScores(C, D)
    loaded.load_state_dict(metric.state_dict())
    both = tuple(torch.cat(parts) for parts in zip(first, second, strict=True))
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric)), loaded):
        assert values_of(copy) == expected(*first)
        copy.merge_state(filled(second))
        assert values_of(copy) == expected(*both)
    metric.reset()
    metric.update(*second)
    assert values_of(metric) == expected(*second)


def test_two_passes_equal_kept_rows():
    metric = filled(rows(), keep_rows=False)
    with pytest.raises(RuntimeError, match=r"`second_pass\(\)`"):
        metric.compute()
    score_batch = metric.second_pass()
    for batch in zip(*(t.split(31) for t in rows()), strict=True):
        score_batch(*batch)
    assert metric.rows == []
    assert values_of(metric) == expected(*rows())


SHARDS = {2: [(0, 80), (79, 1)], 3: [(25, 0, 55)]}


def on_shards(rank, world_size):
    found, data = {}, rows()
    for shards in SHARDS[world_size]:
        mine = tuple(t.split(list(shards))[rank] for t in data)
        metric = filled(mine)
        before = snapshot(metric)
        found[shards, "kept"] = values_of(metric)
        before["_computed"] = metric._computed
        assert_unchanged(metric, before)
        two_pass = filled(mine, keep_rows=False)
        two_pass.second_pass()(*mine)
        found[shards, "two passes"] = values_of(two_pass)
    found["bytes"] = []
    for n in (40, 4000):
        metric = filled(rows(n, rank), batch_size=500)
        with counted_traffic() as sent:
            metric.compute()
        found["bytes"].append(sum(size for _, _, size in sent))
    return found


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_equal_one_and_send_sums(world_size):
    for found in run_processes(on_shards, world_size):
        # The moments as in any feature metric, and sums for each of the probe's 48 candidates: the log-likelihood, the
        # squares of correctness, and correctness by class.
        assert found.pop("bytes") == [8 * (1 + D + C + C * D + D * D + D + 1 + (2 + C) * 48)] * 2
        assert all(values == expected(*rows()) for values in found.values())
