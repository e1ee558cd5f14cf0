"""N-LEEP against scikit-learn's PCA and mixture with a NumPy LEEP, and its choices: order, subset, seed, edge cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from lightning_leep.functional.moments import feature_moments
from lightning_leep.functional.nleep import nleep, principal_axes, project, row_keys

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def blobs(n, d, C, seed=0, spread=1.0):
    """``[n, d]`` features and ``[n]`` labels of n // C images for each of C Gaussian classes."""
    rng = np.random.default_rng(seed)
    target = np.arange(n) % C
    return torch.as_tensor(spread * rng.normal(size=(n, d)) + 6 * rng.normal(size=(C, d))[target]), torch.as_tensor(
        target
    )


def numpy_leep(theta, y, C) -> float:
    """Nguyen et al. 2020, equations 1 and 2."""
    joint = np.stack([theta[y == k].sum(0) for k in range(C)]) / len(y)
    conditional = joint / joint.sum(0)
    return float(np.mean([np.log(conditional[label] @ row) for row, label in zip(theta, y, strict=True)]))


@pytest.mark.parametrize(
    ("n", "d", "mean"), [(200, 1, 0.0), (200, 6, 0.0), (200, 30, 0.0), (200, 6, 1e6), (40, 120, 0.0)]
)
def test_projection_is_the_principal_components_of_80_percent(n, d, mean):
    """With 120 features 40 rows are decomposed in the dimensions that they span."""
    features, target = blobs(n, d, 3, seed=d)
    moments = feature_moments(features + mean, target, 3)
    projected = project(features + mean, moments.mean, principal_axes(moments)).numpy()
    expected = PCA(0.8 if d > 1 else 1, svd_solver="full").fit_transform(features.numpy())
    expected = expected / expected.std(0, ddof=0).__pow__(2).mean() ** 0.5
    assert projected.shape == expected.shape
    signs = np.sign((projected * expected).sum(0))
    np.testing.assert_allclose(projected * signs, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("variances", "kept"), [((50, 29, 11, 10), 3), ((50, 31, 10, 9), 2), ((85, 5, 5, 5), 1), ((25, 25, 25, 25), 4)]
)
def test_fewest_components_that_reach_80_percent(variances, kept):
    signs = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    signs = torch.cat([signs, -signs])  # columns of mean 0, variance 1, uncorrelated
    features = signs * torch.tensor(variances, dtype=torch.float64).sqrt()
    assert principal_axes(feature_moments(features, torch.zeros(8, dtype=torch.long), 1)).shape == (4, kept)


def test_equals_scikit_learns_mixture_and_leep_by_hand():
    """Well-separated groups, so that k-means finds the same mixture from any order of the rows."""
    rng = np.random.default_rng(0)
    group = np.arange(300) % 3
    features = 30 * np.eye(3)[group] + rng.normal(size=(300, 3))
    target = (group + (rng.random(300) < 0.2)) % 3
    points = PCA(0.8, svd_solver="full").fit_transform(features)
    theta = GaussianMixture(3, random_state=7).fit(points / points.std()).predict_proba(points / points.std())
    value = nleep(torch.as_tensor(features), torch.as_tensor(target), 3, num_components=3).item()
    assert value == pytest.approx(numpy_leep(theta, target, 3), rel=1e-6)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_order_of_rows_does_not_matter(seed):
    features, target = blobs(60, 4, 2, spread=3.0)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    expected = nleep(features, target, 2).item()
    assert nleep(features[order], target[order], 2).item() == pytest.approx(expected, rel=1e-6)


def test_five_components_a_class_by_default():
    features, target = blobs(60, 4, 3, spread=3.0)
    assert nleep(features, target, 3) == nleep(features, target, 3, num_components=15)
    assert nleep(features, target, 3) != nleep(features, target, 3, num_components=5)


def test_mixture_of_a_subset_scores_all_rows():
    """A third of the labels is noise, but for none of the rows that the mixture is fitted to."""
    features, group = blobs(600, 3, 3, spread=0.5)
    fitted = row_keys(features, 0).argsort()[:100]
    target = torch.where(torch.arange(600) % 2 > 0, (group + 1) % 3, group)
    target[fitted] = group[fitted]
    # Groups far apart: a row belongs to the component of its group, whatever the subset.
    expected = numpy_leep(np.eye(3)[group], target.numpy(), 3)
    value = nleep(features, target, 3, num_components=3, max_fit_rows=100).item()
    assert value == pytest.approx(expected, rel=1e-6)
    assert value < -0.5  # of the subset alone it is 0


def test_subset_is_random_and_made_from_the_values_alone():
    features, _ = blobs(2000, 3, 2)
    order = row_keys(features, seed=0).argsort()
    shuffled = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    chosen, again = features[order[:200]], features[shuffled][row_keys(features[shuffled], seed=0).argsort()[:200]]
    assert torch.equal(chosen, again)
    assert not torch.equal(chosen, features[row_keys(features, seed=1).argsort()[:200]])
    # A sample of 200 of 2000: its mean is within four standard errors in each feature.
    z = (chosen.mean(0) - features.mean(0)) / features.std(0) * 200**0.5
    assert bool((z.abs() < 4).all())
    assert bool(row_keys(features, 0).double().mean().abs() < 4 * 2**63 / 3**0.5 / 2000**0.5)


def test_keys_do_not_depend_on_precision_or_the_sign_of_zero():
    features = torch.tensor([[1.5, 0.0], [-0.0, 2.0]])
    expected = row_keys(features, 0).tolist()
    assert row_keys(features.double(), 0).tolist() == row_keys(features.half(), 0).tolist() == expected
    assert row_keys(torch.tensor([[1.5, -0.0], [0.0, 2.0]]), 0).tolist() == expected


def test_constant_features_have_no_axes_and_score_minus_the_label_entropy():
    assert principal_axes(feature_moments(torch.full((20, 3), 1e6 + 0.1), torch.arange(20) % 2, 2)).shape == (3, 0)
    target = torch.tensor([0] * 15 + [1] * 5)
    expected = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert nleep(torch.full((20, 3), 1e6 + 0.1), target, 2).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, r"`num_components`=15 .*, got 12. Pass a smaller `num_components`"),
        ({"num_components": 0}, "`num_components` must be an integer of at least 1"),
        ({"max_fit_rows": 14}, "`max_fit_rows` must be an integer of at least 15"),
    ],
)
def test_too_few_rows_or_components(kwargs, message):
    features, target = blobs(12, 4, 3)
    with pytest.raises(ValueError, match=message):
        nleep(features, target, 3, **kwargs)
