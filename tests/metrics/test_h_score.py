"""H-score as a metric: its own argument, bound and hardest inputs; what it shares is in test_feature_moments.py."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from lightning_leep.metrics.h_score import HScore


def reference(features, target, shrinkage) -> float:
    """tr(cov(f)^+ cov(E[f|y])), or with scikit-learn's shrunk covariance and (1 - alpha) cov(E[f|y])."""
    f = features - features.mean(0)
    g = np.stack([f[target == k].mean(0) for k in target])
    between = g.T @ g / len(f)
    if not shrinkage:
        return float(np.trace(np.linalg.pinv(f.T @ f / len(f), hermitian=True) @ between))
    estimator = LedoitWolf().fit(f)
    return float(np.trace(np.linalg.solve(estimator.covariance_, (1 - estimator.shrinkage_) * between)))


@pytest.mark.parametrize("shrinkage", [False, True])
@pytest.mark.parametrize(("n", "mean"), [(300, 0.0), (300, 1e6), (12, 0.0)])
def test_batches_of_uneven_size_equal_the_dense_formula(n, mean, shrinkage):
    """Imbalanced, one class with a single image, one without any; sorted by class, so batches differ in mean."""
    rng = np.random.default_rng(0)
    target = np.sort(rng.choice(3, n, p=[0.7, 0.25, 0.05]))
    target[-1] = 4
    features = rng.normal(size=(n, 20)) + rng.normal(size=(5, 20))[target] + mean
    metric = HScore(6, 20, shrinkage=shrinkage)
    for low, high in ((0, 1), (1, n // 2), (n // 2, n)):
        metric.update(torch.as_tensor(features[low:high]), torch.as_tensor(target[low:high]))
    assert metric.compute().item() == pytest.approx(reference(features, target, shrinkage), rel=1e-6)


def test_argument_and_bounds():
    assert HScore.plot_lower_bound == 0.0
    assert HScore.higher_is_better
    with pytest.raises(ValueError, match="`shrinkage`"):
        HScore(3, 2, shrinkage=0.5)
