"""What the contract does not ask of NearestNeighbourAccuracy: a bounded state, and its sample on several processes."""

import pytest
import torch

from lightning_leep import NearestNeighbourAccuracy
from lightning_leep.functional import nearest_neighbour_accuracy

C, D = 3, 5


def rows(n=400):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(C, (n,), generator=generator)
    return torch.randn(n, D, generator=generator) + 1.5 * torch.eye(C, D)[target], target


def filled(features, target, batch_size=50, **kwargs):
    metric = NearestNeighbourAccuracy(C, D, **kwargs)
    for batch, labels in zip(features.split(batch_size), target.split(batch_size), strict=True):
        metric.update(batch, labels)
    return metric


def test_the_state_is_bounded():
    metric = filled(*rows(), max_rows=30)
    assert sum(map(len, metric.rows)) <= 60 + 50
    expected = nearest_neighbour_accuracy(*rows(), C, max_rows=30)
    assert metric.compute() == pytest.approx(expected.item())


def test_merged_samples_are_the_sample():
    features, target = rows()
    metric = filled(features[:150], target[:150], max_rows=30)
    metric.merge_state(filled(features[150:], target[150:], max_rows=30))
    assert metric.compute() == pytest.approx(nearest_neighbour_accuracy(features, target, C, max_rows=30).item())
