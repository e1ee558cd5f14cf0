"""Jackknife+: the definition by counting, invariances."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_leep.forecast.statistics.conformal import jackknife_plus, leave_one_out, min_records

numbers = st.floats(-100, 100)


def mean_fit(x, y, scale):
    return lambda new: np.full(len(new), y.mean())


def reference_interval(predictions, residuals, alpha):
    """The definition, by counting: k-th smallest with k = floor(alpha (n + 1)) and ceil((1 - alpha)(n + 1))."""
    n = len(predictions)
    lower = sorted(m - r for m, r in zip(predictions, residuals, strict=True))
    upper = sorted(m + r for m, r in zip(predictions, residuals, strict=True))
    k_low, k_high = math.floor(alpha * (n + 1) + 1e-9), math.ceil((1 - alpha) * (n + 1) - 1e-9)
    return (-math.inf if k_low < 1 else lower[k_low - 1], math.inf if k_high > n else upper[k_high - 1])


@pytest.mark.slow
@given(st.lists(st.tuples(numbers, st.floats(0, 100)), min_size=1, max_size=30), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_matches_the_definition(pairs, coverage):
    predictions, residuals = np.array(pairs).T
    expected = reference_interval(predictions, residuals, 1 - coverage)
    assert jackknife_plus(predictions, residuals, coverage) == pytest.approx(expected)


@pytest.mark.parametrize(("coverage", "least"), [(0.5, 1), (0.75, 3), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_fewest_records_that_bound_an_interval(coverage, least):
    assert min_records(coverage) == least
    for n in (least - 1, least):
        ends = jackknife_plus(np.zeros(n), np.arange(n, dtype=float), coverage)
        assert all(math.isfinite(end) for end in ends) == (n == least)


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 90, math.nan])
def test_coverage_has_to_be_a_proportion(coverage):
    with pytest.raises(ValueError, match="`coverage`"):
        jackknife_plus(np.zeros(3), np.zeros(3), coverage)
    with pytest.raises(ValueError, match="`coverage`"):
        min_records(coverage)


def test_leave_one_out_by_hand():
    """Means of two of (0, 3, 6): 4.5, 3, 1.5; residuals 4.5, 0, 4.5, in units of scales 1, 2, 3."""
    x, y = np.zeros((3, 1)), np.array([0.0, 3.0, 6.0])
    predictions, residuals = leave_one_out(mean_fit, x, y, np.array([1.0, 2.0, 3.0]), np.zeros(1))
    assert predictions.tolist() == [4.5, 3.0, 1.5]
    assert residuals.tolist() == [4.5, 0.0, 1.5]
