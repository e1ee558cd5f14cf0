"""LogME against the evidence of the paper by its fixed point. By a numerical maximum: test_feature_space.py."""

import numpy as np
import pytest
import torch

from lightning_leep.functional.log_me import log_me


def make(n, d, C, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, C, n)
    return rng.normal(size=(n, d)) + signal * rng.normal(size=(C, d))[target], target


def fixed_point_evidence(features, y, alpha=1.0, beta=1.0) -> float:
    """You et al. 2021: singular values of F, alpha = gamma / m'm, beta = (n - gamma) / |Fm - y|^2, to convergence.

    -inf when it does not converge, because the evidence grows towards a limit of alpha / beta.
    """
    n, d = features.shape
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    s = s**2
    reached = (u.T @ y) ** 2
    unreached = y @ y - reached.sum()
    for _ in range(3000):
        ratio = alpha / beta
        if not 1e-12 < ratio < 1e16:
            return -np.inf
        gamma = (s / (s + ratio)).sum()
        mm = (s * reached / (s + ratio) ** 2).sum()
        residual = (reached * (ratio / (s + ratio)) ** 2).sum() + unreached
        alpha, beta = gamma / mm, (n - gamma) / residual
        if abs(alpha / beta - ratio) <= 1e-13 * ratio:
            break
    else:
        return -np.inf
    log_det = np.log(alpha + beta * s).sum() + (d - len(s)) * np.log(alpha)
    evidence = n * np.log(beta) + d * np.log(alpha) - n * np.log(2 * np.pi) - beta * residual - alpha * mm - log_det
    return float(evidence / 2 / n)


def limit_evidence(features, y) -> float:
    """The larger limit of the evidence at its best scale: features that are not used, or labels without noise."""
    n, d = features.shape
    unused = -0.5 * (np.log(2 * np.pi * (y @ y) / n) + 1)
    if n > d:
        return unused
    u, s, _ = np.linalg.svd(features, full_matrices=False)  # of F, since F F' has lost the digits next to a large mean
    noiseless = np.log(2 * np.pi * (((u.T @ y) / s) ** 2).sum() / n) + 1 + 2 * np.log(s).sum() / n
    return max(unused, -0.5 * noiseless)


def maximum_evidence(features, y) -> float:
    """The largest of the stationary points that the fixed point finds from several starts, and of the limits."""
    starts = [fixed_point_evidence(features, y, alpha) for alpha in (1.0, 1e3, 1e6, 1e9)]
    return max(*starts, limit_evidence(features, y))


def reference(features, target) -> float:
    return float(np.mean([maximum_evidence(features, (target == k).astype(float)) for k in np.unique(target)]))


def score(features, target, C=None, **kwargs) -> float:
    C = int(target.max()) + 1 if C is None else C
    return log_me(torch.as_tensor(features), torch.as_tensor(target), C, **kwargs).item()


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "C"), [(200, 8, 3), (30, 60, 2), (24, 3, 12), (100, 1, 2)])
@pytest.mark.parametrize("mean", [0.0, 3.0, 1e6])
def test_equals_the_converged_fixed_point(n, d, C, mean):
    """Many rows, fewer rows than features, about two images a class, one feature; a mean up to 1e6."""
    features, target = make(n, d, C, seed=n)
    features = features + mean
    assert score(features, target, C) == pytest.approx(reference(features, target), rel=1e-6)


def test_the_larger_of_two_maxima_is_found():
    """With a large mean the evidence of a weak class has one maximum that uses the mean alone and one that uses all."""
    features, target = make(60, 3, 30, seed=60)
    features = features + 1e3
    y = (target == 17).astype(float)
    from_one, from_afar = fixed_point_evidence(features, y), fixed_point_evidence(features, y, alpha=1e6)
    assert from_afar > from_one + 0.03  # what the paper's start would miss
    both = log_me(torch.as_tensor(features), torch.as_tensor(y.astype(int)), 2).item()
    assert both == pytest.approx((maximum_evidence(features, 1 - y) + from_afar) / 2, rel=1e-6)


def test_constant_column_is_an_intercept():
    """Raw features: a constant column is one that the model may use, as in the paper."""
    features, target = make(200, 4, 3)
    wide = np.concatenate([features, np.full((200, 1), 0.3)], axis=1)
    assert score(wide, target) == pytest.approx(reference(wide, target), rel=1e-6)
    assert score(wide, target) != pytest.approx(score(features, target), rel=1e-3)


def null_evidence(n_k, n) -> float:
    """Features that are not used: log N(y; 0, I n_k / n) / n."""
    return -0.5 * (np.log(2 * np.pi * n_k / n) + 1)


@pytest.mark.parametrize("value", [-3.0, 1e6 + 0.1])
def test_constant_features_equal_the_fixed_point_with_one_constant_column(value):
    target = np.array([0] * 12 + [1] * 8)
    features = np.full((20, 3), value)
    assert score(features, target) == pytest.approx(reference(features, target), rel=1e-6)


def test_features_orthogonal_to_the_labels_score_as_unused():
    """Centred features without any correlation to either class, and a mean of zero: t = 0 is the maximum."""
    features = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    target = torch.tensor([0, 0, 1, 1])
    assert log_me(features, target, 2).item() == pytest.approx(null_evidence(2, 4), rel=1e-9)
    imbalanced = torch.tensor([0, 0, 0, 1])
    expected = (null_evidence(3, 4) + null_evidence(1, 4)) / 2
    assert log_me(torch.zeros(4, 3), imbalanced, 2).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_features_that_reproduce_the_labels_have_finite_evidence_above_any_noisy_ones(scale):
    """The evidence grows without bound as noise vanishes; the signal-to-noise limit of 1e10 keeps it finite."""
    target = torch.arange(60) % 3
    exact = torch.nn.functional.one_hot(target, 3).double()
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = log_me(scale * exact, target, 3)
    # F F' has eigenvalue 20 for each class: Q = 20 / (1 + 20 t), and t = 1e10 / (variance of F = 2/3).
    t = 1e10 / (2 / 3)
    expected = -0.5 * (np.log(2 * np.pi * 20 / (1 + 20 * t) / 60) + 1 + 3 * np.log1p(20 * t) / 60)
    assert value.item() == pytest.approx(expected, rel=1e-6)
    assert value > log_me(exact + 1e-3 * noise, target, 3) > log_me(exact + 1e-2 * noise, target, 3)
