"""The joint, the conditional and the EEP against the paper's formulas, a row at a time in float64."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given

from lightning_leep.functional import chunks as chunks_module
from lightning_leep.functional.leep import (
    conditional_probability,
    eep_correct,
    eep_likelihood,
    joint_probability,
    leave_one_out_likelihood,
)
from tests._helpers.metric_state import AllocatedBytes
from tests._helpers.references import reference_conditional, tasks


def conditional_of(theta, labels, num_target_classes):
    return conditional_probability(joint_probability(theta, labels, num_target_classes))


@pytest.mark.slow
@given(tasks())
def test_joint_is_the_sum_of_the_rows_of_each_class(task):
    theta, labels, num_target_classes = task
    joint = joint_probability(theta, labels, num_target_classes)
    for y in range(num_target_classes):
        for z in range(theta.shape[1]):
            assert joint[y, z].item() == pytest.approx(math.fsum(theta[labels == y, z].tolist()), rel=1e-14, abs=0.0)


@pytest.mark.slow
@given(tasks())
def test_conditional_is_a_distribution_over_target_classes(task):
    theta, labels, num_target_classes = task
    conditional = conditional_of(theta, labels, num_target_classes)
    np.testing.assert_allclose(conditional, reference_conditional(theta, labels, num_target_classes), rtol=1e-12)
    silent = theta.sum(dim=0) == 0
    assert torch.equal(conditional[:, silent], torch.zeros(num_target_classes, int(silent.sum())).double())
    ones = torch.ones(theta.shape[1] - int(silent.sum())).double()
    torch.testing.assert_close(conditional.sum(dim=0)[~silent], ones, rtol=1e-12, atol=0.0)


def test_sums_and_likelihoods_hold_no_graph():
    theta, labels = torch.rand(20, 4).softmax(dim=1).requires_grad_(), torch.arange(20) % 3
    joint = joint_probability(theta, labels, 3)
    likelihood = eep_likelihood(theta, labels, conditional_probability(joint))
    counts = torch.bincount(labels)
    assert not any(x.requires_grad for x in (joint, likelihood, leave_one_out_likelihood(theta, labels, joint, counts)))


def test_no_temporary_of_rows_times_both_numbers_of_classes():
    # n x Z x C in float64 would be 400 MB here; all that is made is a few times n x Z
    theta, labels = torch.rand(1000, 500).softmax(dim=1), torch.randint(100, (1000,))
    with AllocatedBytes() as allocated:
        conditional = conditional_of(theta, labels, 100)
        eep_likelihood(theta, labels, conditional)
        eep_correct(theta, labels, conditional)
    assert allocated.total < 10 * 8 * 1000 * 500


def test_no_rows():
    rows, labels = torch.empty(0, 4), torch.empty(0, dtype=torch.long)
    joint = joint_probability(rows, labels, 3)
    assert torch.equal(joint, torch.zeros(3, 4).double())
    assert torch.equal(conditional_probability(joint), torch.zeros(3, 4).double())
    assert eep_likelihood(rows, labels, joint).shape == (0,)
    assert eep_correct(rows, labels, joint).shape == (0,)
    assert leave_one_out_likelihood(rows, labels, joint, torch.zeros(3).long()).shape == (0,)


@pytest.mark.parametrize("num_target_classes", [2, 3, 7])
def test_tied_classes_share_the_row_exactly(num_target_classes):
    labels = torch.arange(num_target_classes)
    theta = torch.full((num_target_classes, 4), 0.25)
    correct = eep_correct(theta, labels, conditional_of(theta, labels, num_target_classes))
    assert correct.tolist() == [1 / num_target_classes] * num_target_classes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_classes_that_differ_by_rounding_alone_are_tied(monkeypatch, dtype):
    for module in (chunks_module, sys.modules["lightning_leep.functional.leep"]):
        monkeypatch.setattr(module, "accumulation_dtype", lambda device: dtype)
    rows = torch.rand(200, 6, generator=torch.Generator().manual_seed(0)).to(dtype).softmax(dim=1)
    theta = torch.cat([rows, rows.flip(0), rows.roll(77, dims=0)])  # the same rows, summed in three orders
    labels = torch.arange(3).repeat_interleave(200)
    conditional = conditional_of(theta, labels, 3)
    eep = theta @ conditional.T
    assert (eep.amax(dim=1) > eep.amin(dim=1)).any()  # what makes this test one
    torch.testing.assert_close(eep_correct(theta, labels, conditional), torch.full((600,), 1 / 3, dtype=dtype))


def test_classes_that_differ_by_more_than_rounding_are_not_tied():
    conditional = torch.tensor([[0.5], [0.5 * (1 - 1e-11)]], dtype=torch.float64)
    theta = torch.ones(2, 1, dtype=torch.float64)
    assert eep_correct(theta, torch.tensor([0, 1]), conditional).tolist() == [1.0, 0.0]


def test_sums_that_are_a_rounding_error_below_the_row_leave_nothing():
    """As float32 sums may be, where there is no float64. What is left is the prior: 1/2 of weight 1, of 1 and 1 + 1."""
    theta = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    joint = torch.tensor([[1.0 - 1e-3, 1.0], [0.0, 1.0]], dtype=torch.float64)
    likelihood = leave_one_out_likelihood(theta, torch.tensor([0, 0, 1]), joint, torch.tensor([2, 1]))
    assert likelihood.tolist() == [0.5 / 1.0, 0.5 / 2.0]
