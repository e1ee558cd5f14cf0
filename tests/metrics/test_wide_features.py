"""Fewer rows than features: however the rows come, the scores are those by definition."""

import numpy as np
import pytest
import torch

from lightning_leep import FeatureScores, HScore, LinearProbeAccuracy, LogME
from tests._helpers.distributed import run_processes
from tests._helpers.feature_references import reference_h_score, reference_log_me, reference_probe

N, D, C = 22, 40, 3


def rows(seed=0):
    """Feature 3 is constant, class 2 has one row."""
    rng = np.random.default_rng(seed)
    target = np.arange(N) % 2
    target[5] = 2
    features = rng.normal(size=(N, D)) + 0.5 * rng.normal(size=(C, D))[target] + 2.0
    features[:, 3] = 0.1
    return torch.from_numpy(features), torch.from_numpy(target)


def expected(*data):
    features, target = (np.concatenate([part.numpy() for part in parts]) for parts in zip(*data, strict=True))
    found = reference_probe(features, target) | {
        "h_score": reference_h_score(features, target, shrinkage=True),
        "h_score_unshrunk": reference_h_score(features, target, shrinkage=False),
        "log_me": reference_log_me(features, target),
    }
    return {name: pytest.approx(value, rel=1e-7) for name, value in found.items()}


def values_of(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def filled(data, size=8, **kwargs):
    metric = FeatureScores(C, D, **kwargs)
    for batch in zip(data[0].split(size), data[1].split(size), strict=True):
        metric.update(*batch)
    return metric


def test_kept_rows_in_any_batches_and_as_their_number_grows():
    wanted = expected(rows())
    for size in (1, N):
        assert values_of(filled(rows(), size)) == wanted
    metric = filled(rows())
    for seed in (1, 2):  # up to more rows than features
        metric.update(*rows(seed))
        assert values_of(metric) == expected(*(rows(s) for s in range(seed + 1)))


def test_moments_alone():
    """Of metrics that keep no rows, and of a second pass over them."""
    metric = filled(rows(), keep_rows=False)
    score_batch = metric.second_pass()
    for batch in zip(*(part.split(5) for part in rows()), strict=True):
        score_batch(*batch)
    wanted = expected(rows())
    assert values_of(metric) == wanted
    singles = {
        "h_score": HScore(C, D),
        "h_score_unshrunk": HScore(C, D, shrinkage=False),
        "log_me": LogME(C, D),
        "linear_probe_accuracy": LinearProbeAccuracy(C, D),
    }
    for name, single in singles.items():
        single.update(*rows())
        assert single.compute().item() == wanted[name], name


def test_merged_and_copied():
    one, other = filled(rows()), filled(rows(1))
    one.compute()
    one.merge_state(other)
    assert values_of(one.clone()) == values_of(one) == expected(rows(), rows(1))
    assert values_of(other) == expected(rows(1))


def on_shards(rank, world_size):
    """Of kept rows, of two passes, and of rows that are added after the states were pooled once."""
    found = []
    for sizes in ((0, N), (13, 9)):
        mine = tuple(part.split(sizes)[rank] for part in rows())
        kept, two_pass = filled(mine), filled(mine, keep_rows=False)
        once = values_of(kept)
        kept.update(*mine)
        two_pass.second_pass()(*mine)
        found.append((once, values_of(two_pass), values_of(kept)))
    return found


@pytest.mark.distributed
def test_processes_answer_as_one():
    once, twice = expected(rows()), expected(rows(), rows())
    assert run_processes(on_shards, 2) == [[(once, once, twice)] * 2] * 2
