"""Accuracy of the EEP against a float64 reference, and what must hold of it."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_leep import EEPAccuracy
from tests._helpers.references import has_near_ties, reference_eep_accuracy, tasks

EXACT = {"abs": 1e-12}


def accuracy_of(theta, labels, num_target_classes, batch_size=5):
    metric = EEPAccuracy(num_target_classes, theta.shape[1], from_logits=False)
    for rows, target in zip(theta.split(batch_size), labels.split(batch_size), strict=True):
        metric.update(rows, target)
    return metric.compute().item()


@pytest.mark.slow
@given(tasks(), st.integers(1, 12))
def test_reference_in_batches_of_any_size(task, batch_size):
    assume(not has_near_ties(*task))
    assert accuracy_of(*task, batch_size) == pytest.approx(reference_eep_accuracy(*task), **EXACT)


def test_worked_example():
    # J = [[1.5, 0.5], [0.3, 0.7]]: P(0|z) = (5/6, 5/12), P(1|z) = (1/6, 7/12); the last row has q = (0.54, 0.46)
    theta = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]], dtype=torch.float64)
    assert accuracy_of(theta, torch.tensor([0, 0, 1]), 2) == pytest.approx(2 / 3, **EXACT)


@pytest.mark.slow
@given(tasks())
def test_source_that_says_nothing_earns_the_share_of_the_largest_class(task):
    theta, labels, num_target_classes = task
    largest = torch.bincount(labels).max().item() / len(labels)
    value = accuracy_of(theta[:1].expand_as(theta), labels, num_target_classes)
    assert value == pytest.approx(largest, **EXACT)  # shared by the k largest: k * (largest / k)
