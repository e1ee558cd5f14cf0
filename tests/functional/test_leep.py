"""What theory says of LEEP on any valid input, and its parts at their edges. Its formula: metrics/test_leep.py."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightning_leep.functional import chunks as chunks_module
from lightning_leep.functional import leep
from lightning_leep.functional.leep import (
    conditional_probability,
    eep_correct,
    eep_likelihood,
    joint_probability,
    leave_one_out_likelihood,
)
from tests._helpers.metric_state import AllocatedBytes
from tests._helpers.references import (
    label_entropy,
    reference_conditional,
    reference_nce,
    tasks,
)

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
EXACT = {"rel": 1e-12, "abs": 1e-12}


def leep_of(theta, labels, num_target_classes):
    return leep(theta, labels, num_target_classes, from_logits=False).item()


@pytest.mark.slow
@given(tasks(), st.data())
def test_between_the_likelihood_of_any_choice_of_source_classes_and_zero(task, data):
    # each term is one of the sum in q_i(y_i) >= P(y_i|z_i) theta_i(z_i)
    theta, labels, num_target_classes = task
    any_choice = hnp.arrays(np.int64, len(labels), elements=st.integers(0, theta.shape[1] - 1))
    z = data.draw(st.just(theta.numpy().argmax(axis=1)) | any_choice)
    conditional = reference_conditional(theta, labels, num_target_classes)
    with np.errstate(divide="ignore"):
        lower = np.log(conditional[labels, z] * theta.numpy()[np.arange(len(labels)), z]).mean()
    assert lower - 1e-12 <= leep_of(*task) <= 0.0


def test_bound_with_the_entropy_of_counts_does_not_hold_in_general():
    # Property 1 of the paper reads NCE as the mean of log P(y_i|z_i) with the soft P(y|z) above. With NCE's own counts,
    # "NCE + mean log theta_i(z_i) <= LEEP" is false for as little as two rows: 0 + log(0.6 * 0.8) / 2 against
    # q = 0.6/0.8 * 0.6 + 0.4/1.2 * 0.4 = 0.2/0.8 * 0.2 + 0.8/1.2 * 0.8 = 7/12.
    theta, labels = torch.tensor([[0.6, 0.4], [0.2, 0.8]], dtype=torch.float64), torch.tensor([0, 1])
    assert reference_nce(theta.argmax(dim=1), labels) == 0.0
    assert leep_of(theta, labels, 2) == pytest.approx(math.log(7 / 12), **EXACT)
    assert leep_of(theta, labels, 2) < math.log(0.6 * 0.8) / 2 - 0.1


@pytest.mark.slow
@given(tasks(), st.integers(1, 30))
def test_no_better_than_the_head_that_it_grows_into(task, steps):
    # Heads q(y|x) = sum_z A(y, z) theta(z): the EEP is one, and each step of expectation-maximisation of A
    # can only raise the mean log-likelihood, so the best head is at least as good as where these steps end.
    theta, labels, num_target_classes = task
    theta, labels, head = theta.numpy(), labels.numpy(), reference_conditional(theta, labels, num_target_classes)
    one_hot = np.eye(num_target_classes)[labels]  # [n, C]
    for _ in range(steps):
        parts = head[labels] * theta  # [n, Z]
        counts = one_hot.T @ (parts / parts.sum(axis=1, keepdims=True))  # [C, Z], expected counts
        head = np.divide(counts, counts.sum(axis=0), out=np.zeros_like(counts), where=counts.sum(axis=0) > 0)
    best = np.log((head[labels] * theta).sum(axis=1)).mean()
    assert leep_of(*task) <= best + 1e-12


@pytest.mark.slow
@given(tasks())
def test_source_that_says_nothing_scores_minus_the_label_entropy(task):
    theta, labels, num_target_classes = task
    constant = theta[:1].expand_as(theta)
    assert leep_of(constant, labels, num_target_classes) == pytest.approx(-label_entropy(labels), **EXACT)


@pytest.mark.slow
@given(tasks())
def test_one_hot_source_scores_the_negative_conditional_entropy(task):
    theta, labels, num_target_classes = task
    source_labels = theta.argmax(dim=1)
    one_hot = torch.nn.functional.one_hot(source_labels, theta.shape[1]).double()
    expected = reference_nce(source_labels, labels)
    assert leep_of(one_hot, labels, num_target_classes) == pytest.approx(expected, **EXACT)


@pytest.mark.slow
@given(tasks(), st.randoms(use_true_random=False))
def test_order_and_names_do_not_matter(task, random):
    theta, labels, num_target_classes = task
    rows, source, target = (list(range(k)) for k in (*theta.shape, num_target_classes))
    for order in (rows, source, target):
        random.shuffle(order)
    value = leep_of(theta[rows][:, source], torch.tensor(target)[labels][rows], num_target_classes)
    assert value == pytest.approx(leep_of(*task), **EXACT)


# -- the joint and the EEP at their edges ----------------------------------------------------------------------


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
