"""Bounds of a sum of logarithms: valid for every multiplier, and as narrow as optimisers find them to be."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, linprog, minimize

from lightning_leep.functional import log_sum_bounds
from lightning_leep.functional.log_sum_bounds import bound_log_sum


def problem(seed, n=5, num_groups=2, spread=3.0):
    """Random ``known, low, high [n], group [n], truth [n]`` with terms between exp(-2 spread) and 1."""
    generator = np.random.default_rng(seed)
    known = np.exp(-spread * generator.uniform(0, 2, n)) / 2
    high = np.exp(-spread * generator.uniform(0, 2, n)) / 2
    low = high * generator.uniform(0, 1, n)
    truth = low + (high - low) * generator.uniform(0, 1, n)
    return known, low, high, generator.integers(0, num_groups, n), truth


def bounds(known, low, high, group, truth, num_groups=2, **kwargs):
    totals = np.bincount(group, weights=truth, minlength=num_groups)
    arguments = [torch.from_numpy(np.asarray(a)) for a in (known, low, high, group, totals)]
    lower, upper = bound_log_sum(*arguments, smallest=float((known + low).min()), **kwargs)
    return lower.item(), upper.item()


def largest_sum(known, low, high, total):
    """Maximum of sum log(known + t) over the box and the total, by sequential quadratic programming."""
    start = low + (high - low) * (total - low.sum()) / max(high.sum() - low.sum(), 1e-300)
    result = minimize(
        lambda t: -np.log(known + t).sum(),
        start,
        jac=lambda t: -1 / (known + t),
        bounds=list(zip(low, high, strict=True)),
        constraints=LinearConstraint(np.ones((1, len(known))), total, total),
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return -result.fun


def smallest_sum(known, low, high, total):
    """Minimum of the same concave sum: it is at a point with all but one row at an end."""
    best = math.inf
    for free in range(len(known)):
        others = [i for i in range(len(known)) if i != free]
        for ends in itertools.product((0, 1), repeat=len(others)):
            t = np.zeros(len(known))
            t[others] = [(low, high)[end][i] for end, i in zip(ends, others, strict=True)]
            t[free] = total - t[others].sum()
            if low[free] - 1e-12 <= t[free] <= high[free] + 1e-12:
                best = min(best, np.log(known + t).sum())
    return best


def cut(low, high, total):
    """What of each interval the total leaves open when all other rows are at one of their ends."""
    others = [np.arange(len(low)) != i for i in range(len(low))]
    return (
        np.array([max(low[i], total - high[m].sum()) for i, m in enumerate(others)]),
        np.array([min(high[i], total - low[m].sum()) for i, m in enumerate(others)]),
    )


def chord(known, low, high):
    return np.log((known + high) / (known + low)) / np.maximum(high - low, 1e-300)


def knapsack_sum(known, low, high, total):
    """Minimum of the sum of the chords, by linear programming."""
    low, high = cut(low, high, total)
    slope = chord(known, low, high)
    result = linprog(
        slope, A_eq=np.ones((1, len(known))), b_eq=[total], bounds=list(zip(low, high, strict=True)), method="highs"
    )
    return (np.log(known + low) - slope * low).sum() + result.fun


def largest_rise(known, low, high, total):
    """How far the logarithm of any row rises above its chord, at most: where its slope is the chord's."""
    low, high = cut(low, high, total)
    open_ = high - low > 1e-12
    known, low, slope = known[open_], low[open_], chord(known, low, high)[open_]
    return max((np.log(1 / slope) - np.log(known + low) - slope * (1 / slope - known - low)).tolist(), default=0.0)


def by_group(function, known, low, high, group, truth):
    return sum(function(known[m], low[m], high[m], truth[m].sum()) for m in (group == g for g in np.unique(group)))


@pytest.mark.parametrize("seed", range(15))
def test_upper_bound_is_the_maximum(seed):
    task = problem(seed)
    # The optimiser's point may miss its constraint by its own tolerance of 1e-9 or so times a slope of up to 1e3.
    assert bounds(*task)[1] == pytest.approx(by_group(largest_sum, *task), abs=1e-6)


@pytest.mark.parametrize("seed", range(15))
def test_lower_bound_is_the_knapsack_over_the_chords_and_below_every_extreme_point(seed):
    task = problem(seed)
    lower = bounds(*task)[0]
    assert lower == pytest.approx(by_group(knapsack_sum, *task), abs=1e-8)
    minimum = by_group(smallest_sum, *task)
    assert lower <= minimum + 1e-9
    assert minimum - lower <= by_group(largest_rise, *task) + 1e-9


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 8),
    num_groups=st.integers(1, 4),
    spread=st.floats(0.1, 12),
    smallest=st.sampled_from([1e-14, 1e-6, 0.5]),
)
def test_truth_is_between_the_bounds_whatever_the_range_of_multipliers(seed, n, num_groups, spread, smallest):
    known, low, high, group, truth = problem(seed, n, num_groups, spread)
    totals = np.bincount(group, weights=truth, minlength=num_groups)
    arguments = [torch.from_numpy(a) for a in (known, low, high, group, totals)]
    lower, upper = bound_log_sum(*arguments, smallest=smallest, rounding=1e-14)
    assert lower.item() <= np.log(known + truth).sum() <= upper.item()


@pytest.mark.parametrize("halvings", [0, 1, 5, 20])
def test_search_that_is_cut_short_gives_wider_bounds_that_hold(halvings, monkeypatch):
    task = known, *_, truth = problem(3, n=20)
    converged = bounds(*task)
    monkeypatch.setattr(log_sum_bounds, "NUM_HALVINGS", halvings)
    lower, upper = bounds(*task)
    assert lower < np.log(known + truth).sum() < upper
    assert lower < converged[0]
    assert upper >= converged[1]


def test_all_rows_at_one_end_leave_nothing_open():
    known, low, high, group, _ = problem(1)
    for end in (low, high):
        lower, upper = bounds(known, low, high, group, end, rounding=1e-14)
        assert lower == pytest.approx(np.log(known + end).sum(), abs=1e-8)
        assert upper == pytest.approx(np.log(known + end).sum(), abs=1e-8)
        assert lower <= np.log(known + end).sum() <= upper


def test_one_row_of_a_group_is_known_from_the_total():
    known, low, high, _, truth = problem(2, n=3)
    lower, upper = bounds(known, low, high, np.arange(3), truth, num_groups=3)
    assert lower == pytest.approx(np.log(known + truth).sum(), abs=1e-12)
    assert upper == pytest.approx(np.log(known + truth).sum(), abs=1e-12)


def test_rounding_moves_the_bounds_outwards_by_at_least_itself():
    task = problem(4)
    lower, upper = bounds(*task)
    wider = bounds(*task, rounding=1e-6)
    assert wider[0] < lower - 5 * 1e-6  # 5 rows
    assert wider[1] > upper + 5 * 1e-6
    assert wider[1] - wider[0] < upper - lower + 5 * 1e-6 * 2 * 1e3


def test_chunks_do_not_matter(monkeypatch):
    task = problem(5, n=50, num_groups=3)
    whole = bounds(*task, num_groups=3)
    monkeypatch.setattr(log_sum_bounds, "ROWS_PER_CHUNK", 7)
    assert bounds(*task, num_groups=3) == pytest.approx(whole, abs=1e-12)


def test_no_rows_and_groups_without_rows():
    nothing, labels = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
    lower, upper = bound_log_sum(nothing, nothing, nothing, labels, torch.zeros(3, dtype=torch.float64), 1e-6)
    assert (lower.item(), upper.item()) == (0.0, 0.0)
    task = problem(6)
    assert bounds(*task, num_groups=7) == pytest.approx(bounds(*task), abs=1e-12)


def test_reduce_is_called_a_fixed_number_of_times_on_what_does_not_grow_with_n():
    shapes = {}
    for n in (4, 400):
        calls = []

        def record(value, calls=calls):
            calls.append(tuple(value.shape))
            return value

        bounds(*problem(7, n=n), reduce=record)
        shapes[n] = calls
    assert shapes[4] == shapes[400] == [(2, 2)] * (log_sum_bounds.NUM_HALVINGS + 2)
