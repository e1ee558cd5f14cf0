"""H-score against dense NumPy covariances and a pseudo-inverse, and scikit-learn's Ledoit-Wolf covariance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_leep.functional.feature_space import space_of_moments
from lightning_leep.functional.h_score import h_score, h_score_of_space
from lightning_leep.functional.moments import empty_moments, update_moments
from tests._helpers.feature_references import reference_h_score


def make(n, d, C, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, C, n)
    return rng.normal(size=(n, d)) + signal * rng.normal(size=(C, d))[target], target


def projection_reference(features, target) -> float:
    """The plain form as the squared length of the centred labels' projections on the features, from an SVD.

    It squares no singular value, so it is right where the covariance has lost the digits.
    """
    f = features - features.mean(0)
    u, s, _ = np.linalg.svd(f / f.std(0), full_matrices=False)
    u = u[:, s > 1e-12 * s[0]]
    return float(sum(((u.T @ (target == k)) ** 2).sum() / (target == k).sum() for k in np.unique(target)))


def score(features, target, shrinkage, C=None, **kwargs) -> float:
    C = int(target.max()) + 1 if C is None else C
    return h_score(torch.as_tensor(features), torch.as_tensor(target), C, shrinkage, **kwargs).item()


both = pytest.mark.parametrize("shrinkage", [False, True])


@both
def test_more_classes_than_rows_and_one_feature(shrinkage):
    """The other sizes: test_feature_space.py."""
    for n, d, C in ((8, 5, 20), (40, 1, 2)):
        features, target = make(n, d, C, seed=n)
        expected = reference_h_score(features + 1e6, target, shrinkage)
        assert score(features + 1e6, target, shrinkage, C) == pytest.approx(expected, rel=1e-6)


def streamed(features, target, batch_size) -> float:
    moments = empty_moments(int(target.max()) + 1, features.shape[1])
    features, target = torch.as_tensor(features), torch.as_tensor(target)
    for rows, labels in zip(features.split(batch_size), target.split(batch_size), strict=True):
        moments = update_moments(moments, rows, labels)
    return h_score_of_space(space_of_moments(moments), shrinkage=False).item()


@pytest.mark.parametrize(("Z", "batch_size"), [(5, 400), (10, 7), (100, 50)])
def test_rounding_of_float32_is_no_direction(Z, batch_size):
    """Probabilities add up to 1 but for their rounding: as good as without the last of them."""
    logits, target = make(400, Z, 4)
    probs = torch.as_tensor(logits, dtype=torch.float32).softmax(dim=1)
    assert torch.linalg.matrix_rank((probs - probs.mean(0)).double()) == Z  # the rounding is there
    expected = projection_reference(probs.double().numpy()[:, :-1], target)
    assert streamed(probs, target, batch_size) == pytest.approx(expected, rel=1e-6)


def test_first_batch_far_from_the_rest():
    """4 rows 100,000 standard deviations away from the other 1996."""
    features, target = make(2000, 6, 3)
    features[:4] += 1e5 * np.random.default_rng(1).normal(size=(1, 6))
    assert streamed(features, target, 4) == pytest.approx(projection_reference(features, target), rel=1e-7)


def test_exactly_dependent_and_constant_features_add_nothing_to_the_plain_form():
    features, target = make(200, 4, 3)
    features = np.round(features * 256) / 256  # sums below are exact
    wide = np.concatenate([features, features[:, :2] + features[:, 2:], np.full((200, 1), 7.1)], axis=1)
    assert score(wide, target, False) == pytest.approx(reference_h_score(features, target, False), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 40), d=st.integers(1, 12), C=st.integers(1, 6), seed=st.integers(0, 2**16), signal=st.floats(0, 50)
)
def test_bounds(n, d, C, seed, signal):
    features, target = make(n, d, C, seed, signal)
    rank = np.linalg.matrix_rank(features - features.mean(0))
    bound = min(len(np.unique(target)) - 1, rank)
    plain, shrunk = score(features, target, False, C), score(features, target, True, C)
    assert -1e-9 <= plain <= bound + 1e-6
    assert -1e-9 <= shrunk <= bound + 1e-6


def test_plain_form_is_at_its_bound_for_noise_when_rows_are_few_and_the_shrunk_form_is_not():
    features, target = make(20, 100, 4, signal=0.0)
    assert score(features, target, False) == pytest.approx(3.0, rel=1e-9)
    assert score(features, target, True) < 2.0


@both
@pytest.mark.parametrize("value", [0.0, 1e6 + 0.1])
def test_constant_features_score_zero(shrinkage, value):
    features = torch.full((10, 3), value, dtype=torch.float64)
    assert h_score(features, torch.arange(10) % 2, 2, shrinkage) == 0


@both
def test_too_large_features(shrinkage):
    features, target = make(60, 4, 3)
    with pytest.raises(ValueError, match=r"`features` must be finite and up to 8e\+70"):
        score(features * 1e80, target, shrinkage)
