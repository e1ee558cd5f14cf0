"""Distance from the records: by hand, false alarms, what a moved point looks like."""

import math

import numpy as np
import pytest

from lightning_leep.forecast.novelty import SLACK, distance, pull_inside


def test_distance_by_hand():
    """Two records at -1 and 1: covariance 1, so delta / sqrt(1 + 0.25)."""
    assert distance(np.array([[-1.0], [1.0]]), np.array([3.0])) == pytest.approx(3 / math.sqrt(1 + SLACK**2))


def test_a_feature_that_never_varied_counts_in_units_of_the_slack():
    x = np.array([[0.0, 2.0], [0.0, 2.0], [0.0, 2.0]])
    assert distance(x, np.array([0.0, 3.0])) == pytest.approx(1 / SLACK)


def test_far_points_are_moved_to_the_edge():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3))
    furthest = max(distance(np.delete(x, i, axis=0), x[i]) for i in range(30))
    far = np.array([50.0, 0.0, -20.0])
    inside, moved = pull_inside(x, far)
    assert moved
    assert distance(x, inside) == pytest.approx(furthest)
    direction = (inside - x.mean(0)) / (far - x.mean(0))
    np.testing.assert_allclose(direction, direction[0])
    assert 0 < direction[0] < 1
    near, moved = pull_inside(x, x.mean(0) + 0.1)
    assert not moved
    np.testing.assert_array_equal(near, x.mean(0) + 0.1)


def test_an_unusual_combination_of_usual_values_is_far():
    line = np.linspace(-3, 3, 40)
    x = np.column_stack([line, line])
    assert not pull_inside(x, np.array([2.0, 2.0]))[1]
    assert pull_inside(x, np.array([2.0, -2.0]))[1]


def test_false_alarms_are_rare():
    """A point drawn like the n = 19 records is the furthest of the 20 in about 1 of 20 draws."""
    rng = np.random.default_rng(1)
    alarms = sum(pull_inside(data[:19], data[19])[1] for data in rng.normal(size=(400, 20, 4)))
    assert 0.05 - 4 * math.sqrt(0.05 * 0.95 / 400) <= alarms / 400 <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)


def test_missing_values_are_usual():
    x = np.array([[0.0, np.nan], [1.0, np.nan], [2.0, np.nan]])
    assert not pull_inside(x, np.array([1.0, 1e9]))[1]
    x = np.array([[0.0, 1.0], [1.0, np.nan], [2.0, 1.2]])
    assert distance(x, np.array([1.0, np.nan])) == pytest.approx(0)
    assert pull_inside(x, np.array([90.0, np.nan]))[1]


def test_identical_records():
    x = np.ones((9, 2))
    assert not pull_inside(x, np.array([1.0, 1.0 + 0.99 * SLACK]))[1]
    inside, moved = pull_inside(x, np.array([1.0, 9.0]))
    assert moved
    np.testing.assert_allclose(inside, [1, 1 + SLACK])
