"""The joint and the EEP at their edges: memory, no rows, ties, rounding. Their values: test_leep.py."""

import sys

import pytest
import torch

from lightning_leep.functional import chunks as chunks_module
from lightning_leep.functional.leep import (
    conditional_probability,
    eep_correct,
    eep_likelihood,
    joint_probability,
    leave_one_out_likelihood,
)
from tests._helpers.metric_state import AllocatedBytes


def conditional_of(theta, labels, num_target_classes):
    return conditional_probability(joint_probability(theta, labels, num_target_classes))


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
