"""LogME as a metric: its hardest inputs; the rest is in test_contract.py."""

import numpy as np
import pytest
import torch

from lightning_leep import LogME


def reference(features, target) -> float:
    """Mean over the classes present of log N(y; 0, I / beta + F F' / alpha) / n, on a grid of their ratio.

    For t = beta / alpha the best beta is n / (y' (I + t F F')^-1 y). A grid of 0.002 in log t misses no more than 1e-6.
    """
    n = len(target)
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    log_ratio = np.arange(-45, 25, 0.002)
    gain = np.exp(log_ratio)[:, None] * s**2  # [T, r]
    values = []
    for k in np.unique(target):
        y = (target == k).astype(float)
        reached = (u.T @ y) ** 2
        misfit = max(y @ y - reached.sum(), 0.0) + (reached / (1 + gain)).sum(1)
        values.append((-0.5 * (np.log(2 * np.pi * misfit / n) + 1 + np.log1p(gain).sum(1) / n)).max())
    return float(np.mean(values))


@pytest.mark.parametrize(("n", "mean"), [(300, 0.0), (300, 100.0), (300, 1e6), (30, 1.0)])
def test_batches_of_uneven_size_equal_the_dense_formula(n, mean):
    """Imbalanced, one class with a single image, one without any; sorted by class, so batches differ in mean."""
    rng = np.random.default_rng(0)
    target = np.sort(rng.choice(3, n, p=[0.7, 0.25, 0.05]))
    target[-1] = 4
    features = rng.normal(size=(n, 20)) + rng.normal(size=(5, 20))[target] + mean
    metric = LogME(6, 20)
    for low, high in ((0, 1), (1, n // 2), (n // 2, n)):
        metric.update(torch.as_tensor(features[low:high]), torch.as_tensor(target[low:high]))
    assert metric.compute().item() == pytest.approx(reference(features, target), rel=1e-5, abs=1e-6)
