"""LEEPMetric: the mistakes that implementations make, precision, bad batches, and equality with one shot."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_leep import EEPAccuracy, LEEPMetric
from lightning_leep.functional import leep
from tests._helpers.references import (
    has_near_ties,
    random_task,
    reference_eep_accuracy,
    reference_leep,
    reference_nce,
    reference_softmax,
    tasks,
)

EXACT = {"rel": 1e-12, "abs": 1e-12}


def filled(preds, target, num_target_classes, batch_size=7, **kwargs):
    metric = LEEPMetric(num_target_classes, preds.shape[1], **kwargs)
    for rows, labels in zip(preds.split(batch_size), target.split(batch_size), strict=True):
        metric.update(rows, labels)
    return metric


@pytest.mark.slow
@given(tasks(), st.integers(1, 12))
def test_batches_equal_one_shot_and_the_paper(task, batch_size):
    theta, labels, num_target_classes = task
    value = filled(theta, labels, num_target_classes, batch_size, from_logits=False).compute()
    assert value.item() == pytest.approx(reference_leep(theta, labels, num_target_classes), **EXACT)
    one_shot = leep(theta, labels, num_target_classes, from_logits=False)
    assert one_shot.item() == pytest.approx(value.item(), **EXACT)


def test_mistake_no_logarithm():
    preds, labels = random_task(50, 4, 3)
    assert filled(preds, labels, 3).compute() < 0  # the mean probability is above 0


def test_mistake_source_class_without_mass():
    theta = torch.tensor([[0.7, 0.0, 0.3], [0.2, 0.0, 0.8], [0.6, 0.0, 0.4]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0])
    without = filled(theta[:, [0, 2]], labels, 2, from_logits=False).compute()
    assert filled(theta, labels, 2, from_logits=False).compute().item() == pytest.approx(without.item(), **EXACT)


@pytest.mark.parametrize("absent", [0, 2, 4])
def test_mistake_number_of_classes_from_the_labels(absent):
    preds, labels = random_task(60, 6, 4)
    labels = labels + (labels >= absent)
    metric = filled(preds.double(), labels, 5)
    assert metric.joint.shape == (5, 6)
    assert metric.compute().item() == pytest.approx(reference_leep(reference_softmax(preds), labels, 5), **EXACT)


def test_mistake_repeated_labels_dropped():
    metric = filled(torch.full((9, 2), 0.5), torch.zeros(9).long(), 2, 9, from_logits=False)
    assert metric.joint.tolist() == [[4.5, 4.5], [0.0, 0.0]]


def test_mistake_softmax_applied_again_to_the_eep():
    # of a constant source the EEP is (3/4, 1/4); its softmax is (0.62, 0.38)
    metric = filled(torch.zeros(4, 3).double(), torch.tensor([0, 0, 0, 1]), 2)
    assert metric.compute().item() == pytest.approx(0.75 * math.log(0.75) + 0.25 * math.log(0.25), **EXACT)


def test_mistake_float16_accumulation():
    # a float16 sum of ones stops at 2048, a bfloat16 one at 256
    source = torch.arange(6000) % 2
    rows = torch.nn.functional.one_hot(source, 2).half()
    labels = (torch.arange(6000) % 3 == 0).long()
    metric = filled(rows, labels, 2, 1000, from_logits=False)
    assert metric.joint.tolist() == [[2000.0, 2000.0], [1000.0, 1000.0]]
    assert metric.compute().item() == pytest.approx(reference_nce(source, labels), **EXACT)


def test_mistake_float16_softmax_loses_small_probabilities():
    # exp(-25) = 1.4e-11 is nothing in float16, whose smallest number is 6e-8
    preds = torch.tensor([[25.0, 0.0], [25.0, 1.0]], dtype=torch.float16)
    metric = filled(preds, torch.tensor([0, 1]), 2)
    small = reference_softmax(preds)[:, 1]
    assert metric.joint[:, 1].tolist() == pytest.approx(small.tolist(), rel=1e-6)


def test_mistake_logits_taken_for_probabilities():
    preds, labels = random_task(20, 4, 3)
    with pytest.raises(ValueError, match="`from_logits=True`"):
        filled(preds, labels, 3, from_logits=False)


def test_mistake_probabilities_guessed_from_their_range():
    preds, labels = random_task(20, 4, 3)
    theta = preds.double().softmax(dim=1)
    expected = reference_leep(reference_softmax(theta), labels, 3)  # a softmax of what look like probabilities
    assert filled(theta, labels, 3).compute().item() == pytest.approx(expected, **EXACT)


def test_score_of_a_perfect_source_does_not_end_above_zero():
    rows = torch.full((6, 4), 0.25 * (1 + 1.5e-6))  # a sum of 1 within the rounding of float32, and used as it is
    assert filled(rows, torch.zeros(6).long(), 1, from_logits=False).compute().item() == 0.0
    assert leep(rows, torch.zeros(6).long(), 1, from_logits=False).item() == 0.0


def test_mistake_perfect_score_of_one_row():
    metric = filled(torch.rand(1, 4), torch.tensor([0]), 3)
    with pytest.warns(UserWarning, match="LEEPMetric needs at least 2 rows to say anything, got 1; it returns NaN"):
        assert metric.compute().isnan()


# -- accuracy of the EEP -----------------------------------------------------------------------------------------------


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


@pytest.mark.slow
@given(tasks())
def test_source_that_says_nothing_earns_the_share_of_the_largest_class(task):
    theta, labels, num_target_classes = task
    largest = torch.bincount(labels).max().item() / len(labels)
    value = accuracy_of(theta[:1].expand_as(theta), labels, num_target_classes)
    assert value == pytest.approx(largest, **EXACT)  # shared by the k largest: k * (largest / k)
