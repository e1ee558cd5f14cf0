"""Accuracy of the EEP against a float64 reference, and what must hold of it."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_leep import EEPAccuracy
from tests._helpers.references import has_near_ties, random_task, reference_eep_accuracy, reference_softmax, tasks

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
EXACT = {"abs": 1e-12}


def accuracy_of(preds, labels, num_target_classes, batch_size=5, **kwargs):
    metric = EEPAccuracy(num_target_classes, preds.shape[1], **kwargs)
    for rows, target in zip(preds.split(batch_size), labels.split(batch_size), strict=True):
        metric.update(rows, target)
    return metric.compute()


@given(tasks(), st.integers(1, 12))
def test_reference_in_batches_of_any_size(task, batch_size):
    theta, labels, num_target_classes = task
    assume(not has_near_ties(*task))
    value = accuracy_of(theta, labels, num_target_classes, batch_size, from_logits=False)
    assert (value.dtype, value.ndim) == (torch.float64, 0)
    assert value.item() == pytest.approx(reference_eep_accuracy(theta, labels, num_target_classes), **EXACT)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_precision(dtype, autocast):
    preds, labels = random_task(500, 20, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = accuracy_of(preds.to(dtype), labels, 7, 64)
    assert value.item() == pytest.approx(reference_eep_accuracy(reference_softmax(preds.to(dtype)), labels, 7), **EXACT)


def test_worked_example():
    # J = [[1.5, 0.5], [0.3, 0.7]]: P(0|z) = (5/6, 5/12), P(1|z) = (1/6, 7/12); the last row has q = (0.54, 0.46)
    theta = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]], dtype=torch.float64)
    assert accuracy_of(theta, torch.tensor([0, 0, 1]), 2, from_logits=False).item() == pytest.approx(2 / 3, **EXACT)


@given(tasks(), st.randoms(use_true_random=False))
def test_order_and_names_do_not_matter(task, random):
    theta, labels, num_target_classes = task
    assume(not has_near_ties(*task))
    rows, source, target = (list(range(k)) for k in (*theta.shape, num_target_classes))
    for order in (rows, source, target):
        random.shuffle(order)
    renamed = torch.tensor(target)[labels][rows]
    value = accuracy_of(theta[rows][:, source], renamed, num_target_classes, from_logits=False)
    assert value.item() == pytest.approx(
        accuracy_of(theta, labels, num_target_classes, from_logits=False).item(), **EXACT
    )


@given(tasks())
def test_source_that_says_nothing_earns_the_share_of_the_largest_class(task):
    theta, labels, num_target_classes = task
    constant = theta[:1].expand_as(theta)
    largest = torch.bincount(labels).max().item() / len(labels)
    value = accuracy_of(constant, labels, num_target_classes, from_logits=False)
    assert value.item() == pytest.approx(largest, **EXACT)  # shared by the k largest: k * (largest / k)


@given(tasks())
def test_one_hot_source_earns_the_majority_of_each_source_class(task):
    theta, labels, num_target_classes = task
    source = theta.argmax(dim=1)
    one_hot = torch.nn.functional.one_hot(source, theta.shape[1]).double()
    majority = sum(int(torch.bincount(labels[source == z]).max()) for z in source.unique())
    value = accuracy_of(one_hot, labels, num_target_classes, from_logits=False)
    assert value.item() == pytest.approx(majority / len(labels), **EXACT)


def test_ignored_rows_and_empty_batches():
    preds, labels = random_task(40, 6, 3)
    marked, spoilt = labels.clone(), preds.double()
    marked[::4], spoilt[::4] = -100, torch.nan
    keep = marked != -100
    metric = EEPAccuracy(3, 6, ignore_index=-100)
    metric.update(spoilt, marked)
    metric.update(preds[:0].double(), labels[:0])
    expected = reference_eep_accuracy(reference_softmax(preds[keep]), labels[keep], 3)
    assert metric.compute().item() == pytest.approx(expected, **EXACT)


def test_one_row_is_not_a_perfect_score():
    with pytest.warns(UserWarning, match="EEPAccuracy needs at least 2 rows to say anything, got 1"):
        assert accuracy_of(torch.rand(1, 4), torch.tensor([0]), 3).isnan()
