"""N-LEEP as a metric: its own arguments and memory; the rest is in test_contract.py."""

import math

import pytest
import torch

from lightning_leep.functional.nleep import nleep
from lightning_leep.metrics import FeatureScores
from lightning_leep.metrics.nleep import NLEEP
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


def test_constant_features_score_minus_the_label_entropy():
    metric = NLEEP(3, 4)
    metric.update(torch.full((15, 4), 0.3), torch.arange(15) % 3)
    assert metric.compute().item() == pytest.approx(-math.log(3), rel=1e-12)


def test_fewer_rows_than_components_are_nan_with_a_warning():
    metric = NLEEP(3, 4)
    metric.update(*blobs(14))
    with pytest.warns(UserWarning, match="NLEEP needs at least 15 rows to say anything, got 14"):
        assert metric.compute().isnan()
    assert not metric(*blobs(15)).isnan()
