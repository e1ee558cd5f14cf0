"""N-LEEP as a metric: its own arguments and memory; the rest is in test_contract.py."""

import math

import pytest
import torch

from lightning_leep.functional.nleep import nleep
from lightning_leep.metrics import FeatureScores
from lightning_leep.metrics.nleep import NLEEP
from tests._helpers.distributed import run_processes
from tests._helpers.metric_state import assert_unchanged, snapshot

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def blobs(n, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(n) % 3
    centres = 8 * torch.eye(3, 4)
    return spread * torch.randn(n, 4, generator=generator) + centres[target], target


@pytest.mark.parametrize("kwargs", [{"num_components": 4, "seed": 5}, {"max_fit_rows": 60}, {"max_fit_rows": None}])
def test_equals_the_function_whatever_the_arguments(kwargs):
    features, target = blobs(120, spread=4.0)
    metric = NLEEP(3, 4, **kwargs)
    for rows, labels in zip(features.split(50), target.split(50), strict=True):
        metric.update(rows, labels)
    assert metric.compute().item() == pytest.approx(nleep(features, target, 3, **kwargs).item(), rel=1e-7)


def test_rows_are_references():
    features, target = blobs(60)
    metric = NLEEP(3, 4)
    metric.update(features, target)
    assert metric.rows[0].data_ptr() == features.data_ptr()


def test_shares_moments_and_rows_of_the_feature_scores():
    features, target = blobs(120, spread=4.0)
    scores, metric = FeatureScores(3, 4), NLEEP(3, 4)
    for batch, labels in zip(features.split(50), target.split(50), strict=True):
        scores.update(batch, labels)
    metric.share_state(scores)
    assert metric.scatter is scores.scatter
    assert metric.rows is scores.rows
    assert metric.compute().item() == pytest.approx(nleep(features, target, 3).item(), rel=1e-7)
    before = snapshot(scores)
    metric.update(*blobs(20, seed=1))
    assert_unchanged(scores, before)
    metric.share_state(scores)
    assert metric.compute().item() == pytest.approx(nleep(features, target, 3).item(), rel=1e-7)


def test_fewer_rows_than_components_are_nan_with_a_warning():
    metric = NLEEP(3, 4)
    metric.update(*blobs(14))
    with pytest.warns(UserWarning, match="NLEEP needs at least 15 rows to say anything, got 14"):
        assert metric.compute().isnan()
    assert not metric(*blobs(15)).isnan()


def overlapping_on_ranks(rank, world_size):
    """A mixture with many local optima: equal values mean equal rows in equal order on every process."""
    values = []
    for kwargs in ({}, {"max_fit_rows": 60}, {"num_components": 400}):
        metric = NLEEP(3, 4, **kwargs)
        features, target = blobs(300, spread=6.0)
        metric.update(features[rank::world_size], target[rank::world_size])
        values.append(metric.compute().item())
    constant = NLEEP(3, 4)
    constant.update(torch.full((20, 4), 0.3), torch.arange(20) % 3)
    return [*values, constant.compute().item()]


@pytest.mark.distributed
@pytest.mark.filterwarnings("ignore:NLEEP needs at least 400 rows")
def test_processes_fit_the_mixture_that_one_would():
    alone = overlapping_on_ranks(0, 1)
    for values in run_processes(overlapping_on_ranks, 3):
        assert values[:2] == pytest.approx(alone[:2], rel=1e-6)
        assert math.isnan(values[2])  # too few rows, on all processes alike
        assert values[3] == pytest.approx(alone[3], rel=1e-12)
