"""H-score as a metric: its own argument, bound and hardest inputs. The rest is in test_contract.py."""

import numpy as np
import pytest
import torch

from lightning_leep import HScore
from tests._helpers.feature_references import reference_h_score


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
    assert metric.compute().item() == pytest.approx(reference_h_score(features, target, shrinkage), rel=1e-6)


def test_argument():
    with pytest.raises(ValueError, match="`shrinkage` must be True or False, got 0.5"):
        HScore(3, 2, shrinkage=0.5)


def test_constant_features_of_many_more_dimensions_than_rows_score_zero():
    metric = HScore(2, 60, shrinkage=False)
    metric.update(torch.full((8, 60), 3.0), torch.arange(8) % 2)
    assert metric.compute().item() == 0.0
