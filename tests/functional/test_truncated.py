"""What is kept of each row and what the rest can amount to, against linear programs over what was left out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from lightning_leep.functional import joint as joint_module
from lightning_leep.functional import truncated
from lightning_leep.functional.joint import joint_probability
from lightning_leep.functional.log_sum_bounds import bound_log_sum
from lightning_leep.functional.truncated import (
    TruncatedLikelihood,
    relative_rounding,
    truncate_rows,
    truncated_totals,
)
from tests._helpers.references import random_task, reference_conditional, reference_leep, tasks


def truncate(theta, labels, k, num_target_classes):
    """Kept rows, truncated joint and likelihood parts of one batch that is the whole data set."""
    rows, truncated_joint = truncate_rows(theta, labels, k, num_target_classes)
    joint = joint_probability(theta, labels, num_target_classes)
    return rows, truncated_joint, TruncatedLikelihood(joint, truncated_joint, len(labels))(rows, labels)


def left_out(theta, rows):
    """``theta`` with 0 in place of what was kept, in float64."""
    rest = theta.double().numpy().copy()
    np.put_along_axis(rest, rows.columns.numpy().astype(np.int64), 0.0, axis=1)
    return rest


def extreme_part(conditional, allowed, mass, cap, sign):
    """Largest (sign -1) or smallest (+1) sum of P(y|z) theta(z) with each theta(z) up to ``cap``, by linear program."""
    result = linprog(
        sign * conditional[allowed],
        A_eq=np.ones((1, int(allowed.sum()))),
        b_eq=[1.0],
        bounds=(0.0, cap / mass * (1 + 1e-12)),
        method="highs",
    )
    return sign * result.fun * mass


@settings(deadline=None)
@given(task=tasks(min_rows=1), k=st.integers(1, 7))
def test_kept_and_left_out_make_the_whole(task, k):
    theta, labels, c = task
    rows, truncated_joint, _ = truncate(theta, labels, k, c)
    rest = left_out(theta, rows)
    values = rows.probs.numpy()
    assert values.shape == rows.columns.shape == (len(labels), min(k, theta.shape[1]))
    np.testing.assert_array_equal(np.take_along_axis(theta.numpy(), rows.columns.long().numpy(), axis=1), values)
    assert (rest.max(axis=1) <= values.min(axis=1)).all()  # what is left out is nowhere larger than what is kept
    np.testing.assert_allclose(rows.residual, rest.sum(axis=1), rtol=1e-14, atol=0)
    expected = np.zeros((c, theta.shape[1]))
    np.add.at(expected, labels.numpy(), rest)
    np.testing.assert_allclose(truncated_joint, expected, rtol=1e-13, atol=0)


@settings(deadline=None)
@given(task=tasks(min_rows=1), k=st.integers(1, 7))
def test_parts_of_the_likelihood(task, k):
    theta, labels, c = task
    rows, truncated_joint, parts = truncate(theta, labels, k, c)
    conditional = reference_conditional(theta, labels, c)[labels.numpy()]  # [n, Z], of each row's own label
    rest = left_out(theta, rows)
    kept = (conditional * (theta.numpy() - rest)).sum(axis=1)
    part = (conditional * rest).sum(axis=1)
    np.testing.assert_allclose(parts.kept, kept, rtol=1e-13)
    slack = 1e-12 * kept
    assert (parts.low.numpy() <= part + slack).all()
    assert (part <= parts.high.numpy() + slack).all()
    assert (parts.low <= parts.estimate).all()
    assert (parts.estimate <= parts.high).all()
    joint = joint_probability(theta, labels, c)
    totals = np.bincount(labels.numpy(), weights=part, minlength=c)
    np.testing.assert_allclose(truncated_totals(joint, truncated_joint), totals, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize("scale", [0.5, 2.0, 8.0])
def test_bounds_of_the_truncated_part_are_the_extremes_of_a_linear_program(k, scale):
    """Including source classes that nobody's truncated part lies on, and ones kept by all rows of a class."""
    logits, labels = random_task(30, 9, 3, seed=k, scale=scale)
    logits[:, 4] = -torch.inf
    logits[labels == 1, 2] = -torch.inf
    theta = logits.double().softmax(dim=1)
    rows, truncated_joint, parts = truncate(theta, labels, k, 3)
    conditional = reference_conditional(theta, labels, 3)
    for i, y in enumerate(labels.tolist()):
        allowed = truncated_joint[y].numpy() > 0
        allowed[rows.columns[i].long().numpy()] = False
        if not allowed.any():
            assert parts.low[i] == parts.high[i] == 0
            continue
        residual, cap = rows.residual[i].item(), rows.probs[i].min().item()
        if residual < 1e-200:  # a ratio of denormal numbers is no question for a linear program
            continue
        high = extreme_part(conditional[y], allowed, residual, cap, -1)
        low = extreme_part(conditional[y], allowed, residual, cap, 1)
        np.testing.assert_allclose(parts.high[i].item(), high, rtol=1e-8)
        np.testing.assert_allclose(parts.low[i].item(), low, rtol=1e-8, atol=1e-10 * residual)


def test_estimate_is_the_residual_mass_times_the_mean_truncated_conditional():
    theta = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.15, 0.25], [0.1, 0.2, 0.7], [0.2, 0.2, 0.6]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    _, _, parts = truncate(theta, labels, 1, 2)
    # Class 0 kept source class 0 and truncated (0.3, 0.2), (0.15, 0.25); P(0|1) = 0.45/0.85, P(0|2) = 0.45/1.75.
    mean = (0.45 * 0.45 / 0.85 + 0.45 * 0.45 / 1.75) / 0.9
    np.testing.assert_allclose(parts.estimate[:2], [0.5 * mean, 0.4 * mean], rtol=1e-13)


def test_residual_of_a_confident_row_is_not_rounded_away():
    theta = torch.tensor([[1.0, 1e-25, 2e-25], [1.0, 3e-30, 0.0]])
    rows, _ = truncate_rows(theta, torch.tensor([0, 1]), 1, 2)
    expected = theta.double()[:, 1:].sum(dim=1)
    torch.testing.assert_close(rows.residual, expected, rtol=1e-14, atol=0)


def test_one_hot_rows_leave_nothing_out():
    theta, labels = torch.eye(4)[[0, 2, 2, 3]], torch.tensor([0, 1, 1, 0])
    rows, truncated_joint, parts = truncate(theta, labels, 1, 3)
    assert not rows.residual.any()
    assert not truncated_joint.any()
    assert not parts.high.any()
    torch.testing.assert_close(parts.kept, torch.ones(4, dtype=torch.float64))


def test_all_is_kept_when_there_are_no_more_than_k():
    theta, labels = torch.full((3, 4), 0.25), torch.tensor([0, 1, 1])
    rows, truncated_joint, _ = truncate(theta, labels, 9, 2)
    assert rows.probs.shape == (3, 4)
    assert not rows.residual.any()
    assert not truncated_joint.any()


@pytest.mark.parametrize(("num_source", "dtype"), [(32768, torch.int16), (32769, torch.int32)])
def test_columns_are_as_narrow_as_the_source_classes_allow(num_source, dtype):
    theta = torch.zeros(2, num_source)
    theta[:, -1], theta[:, 0] = 0.75, 0.25
    rows, _, parts = truncate(theta, torch.tensor([0, 1]), 2, 2)
    assert rows.columns.dtype == dtype
    assert rows.columns.tolist() == [[num_source - 1, 0]] * 2
    torch.testing.assert_close(parts.kept, torch.full((2,), 0.5, dtype=torch.float64))


def test_no_rows():
    rows, truncated_joint, parts = truncate(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long), 2, 3)
    assert rows.probs.shape == rows.columns.shape == (0, 2)
    assert truncated_joint.shape == (3, 5)
    assert all(part.shape == (0,) for part in parts)


def test_chunks_do_not_matter(monkeypatch):
    logits, labels = random_task(50, 8, 3)
    whole = truncate(logits.softmax(dim=1), labels, 3, 3)
    monkeypatch.setattr(joint_module, "CHUNK_BYTES_CPU", 8 * 8 * 7)
    monkeypatch.setattr(truncated, "CHUNK_BYTES_CPU", 8 * 3 * 9)
    pieces = truncate(logits.softmax(dim=1), labels, 3, 3)
    torch.testing.assert_close(pieces, whole, rtol=1e-13, atol=1e-16)


def test_rounding_grows_with_the_length_of_the_sums_and_the_machine_epsilon():
    joint = torch.zeros(10, 100, dtype=torch.float64)
    assert relative_rounding(1000, joint) > 4 * 1110 * 2.2e-16
    assert relative_rounding(10**6, joint) < 1e-8
    assert relative_rounding(1000, joint.float()) > 1e8 * relative_rounding(1000, joint)


def test_interval_holds_where_there_is_no_float64(monkeypatch):
    """As on a device without it; the rounding that is allowed for is then seen, but stays small."""
    for module in (joint_module, truncated):
        monkeypatch.setattr(module, "accumulation_dtype", lambda device: torch.float32)
    for seed in range(30):
        logits, labels = random_task(150, 20, 3, seed=seed, scale=[0.5, 2.0, 8.0][seed % 3])
        theta, k = logits.softmax(dim=1), [1, 5, 19, 20][seed % 4]
        _, truncated_joint, parts = truncate(theta, labels, k, 3)
        joint = joint_probability(theta, labels, 3)
        assert joint.dtype == parts.high.dtype == torch.float32
        totals = truncated_totals(joint, truncated_joint)
        rounding = relative_rounding(150, joint)
        bounds = bound_log_sum(*parts[:3], labels, totals, smallest=1 / (20**2 * 150), rounding=rounding)
        low, high = (bound.item() / 150 for bound in bounds)
        assert low <= reference_leep(theta, labels, 3) <= high
        assert k < 19 or high - low < 2e-3
