"""Distance from the records: by hand, false alarms, one odd record, what a moved point looks like."""

import math
from functools import cache

import numpy as np
import pytest

from lightning_leep.forecast.statistics.novelty import MARGIN, SLACK, distances, pull_inside, usual_distance
from lightning_leep.forecast.transfer_point import TransferPoint
from tests._helpers.simulated_transfers import make_report, simulate_history


def test_distance_by_hand():
    """Of (0, 0) to (3, 4); with a feature missing on either side, 9 * 2 / 1."""
    x = np.array([[3.0, 4.0], [3.0, np.nan], [np.nan, np.nan]])
    np.testing.assert_allclose(distances(x, np.zeros(2)), [5, math.sqrt(18), 0])
    np.testing.assert_allclose(distances(x[:1], np.array([0, np.nan])), [math.sqrt(18)])


def test_usual_distance_by_hand():
    """1, 2, 4, 8 on a line: second nearest 3, 2, 3, 6 away; the third of four is the most that may count."""
    x = np.array([[1.0], [2.0], [4.0], [8.0]])
    assert usual_distance(x) == pytest.approx(MARGIN * 3)
    assert usual_distance(x[:1]) == SLACK
    assert usual_distance(np.zeros((30, 2))) == SLACK


@pytest.mark.parametrize(("size", "rank"), [(2, 1), (9, 8), (18, 17), (19, 18), (20, 19), (40, 37), (100, 91)])
def test_records_far_from_all_others_do_not_decide(size, rank):
    """n - rank of them, at distances that grow, are the only ones above the usual."""
    odd = size - rank
    x = np.concatenate([np.zeros(rank), 100 * 2.0 ** np.arange(odd)])[:, None]
    assert usual_distance(x) == (SLACK if rank > 1 else pytest.approx(100 * MARGIN))
    if rank > 2:
        x = np.concatenate([np.zeros(rank - 1), 100 * 2.0 ** np.arange(odd + 1)])[:, None]
        assert usual_distance(x) > 100  # one more does


def test_far_points_are_moved_to_the_edge():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3))
    far = np.array([50.0, 0.0, -20.0])
    inside, moved = pull_inside(x, far)
    assert moved
    apart = distances(x, far)
    first, second = np.argsort(apart)[:2]
    middle = (x[first] + x[second]) / 2
    np.testing.assert_allclose(inside, middle + (far - middle) * usual_distance(x) / apart[second])
    assert distances(x, inside)[second] <= usual_distance(x) + distances(x[[first]], x[second])[0] / 2
    near, moved = pull_inside(x, x.mean(0) + 0.1)
    assert not moved
    np.testing.assert_array_equal(near, x.mean(0) + 0.1)


@pytest.mark.slow
def test_nothing_jumps_at_the_edge():
    x = np.random.default_rng(1).normal(size=(25, 2))
    path = [np.array([t, 0.3 * t]) for t in np.arange(0, 8, 2e-2)]
    results = [pull_inside(x, point) for point in path]
    edges = [i for i in range(1, len(path)) if results[i][1] != results[i - 1][1]]
    assert edges
    for i in edges:
        np.testing.assert_allclose(results[i][0], results[i - 1][0], atol=0.04)


@cache
def transfers():
    """100 histories of 41 transfers each, as the regression sees them."""
    rng = np.random.default_rng(1)
    histories = (simulate_history(rng, 41) for _ in range(100))
    return [np.stack([TransferPoint.of(r.report, r.test_size, "head").features for r in h]) for h in histories]


@pytest.mark.slow
@pytest.mark.parametrize("size", [9, 40])
@pytest.mark.parametrize("kind", ["heavy", "skewed", "transfers"])
def test_false_alarms_are_rare(size, kind):
    """Points drawn like the records: at most about 10%, a little more of very short histories with heavy tails."""
    rng = np.random.default_rng(1)
    alarms, trials = 0, 100
    for trial in range(trials):
        draw = {"heavy": lambda size: rng.standard_t(3, size), "skewed": rng.exponential}
        data = transfers()[trial][: size + 1] if kind == "transfers" else draw[kind](size=(size + 1, 4))
        alarms += pull_inside(data[:size], data[size])[1]
    bound = 2 / (size + 1) if size < 19 else 0.1
    assert 0 < alarms / trials <= bound


@pytest.mark.parametrize("size", [12, 30])
def test_one_odd_record_hides_nothing(size):
    """A history of 2 to 10 classes and one of 1000: 100 classes lie outside all the same, and so do 1000."""
    rng = np.random.default_rng(2)
    found = {10: 0, 100: 0, 1000: 0}

    def features(classes, rows):
        probe, floor = rng.uniform(0.5, 0.9), math.log(classes)
        report = make_report(classes, rows, probe, leep=-0.6 * floor, leave_one_out_leep=-0.65 * floor)
        return TransferPoint.of(report, 500, "head").features

    for _ in range(50):
        x = [features(int(rng.integers(2, 11)), int(rng.integers(20, 200))) for _ in range(size)]
        x = np.stack([*x, features(1000, 100)])
        for classes in found:
            found[classes] += pull_inside(x, features(classes, 50))[1]
    assert found[10] <= 5
    assert found[100] >= 40
    assert found[1000] == 50


def test_missing_values_are_usual():
    x = np.array([[0.0, np.nan], [1.0, np.nan], [2.0, np.nan]])
    assert not pull_inside(x, np.array([1.0, 1e9]))[1]
    x = np.array([[0.0, 1.0], [1.0, np.nan], [2.0, 1.2]])
    assert not pull_inside(x, np.array([1.0, np.nan]))[1]
    inside, moved = pull_inside(x, np.array([90.0, np.nan]))
    assert moved
    assert inside[0] < 10
    assert np.isnan(inside[1])


def test_identical_records_and_an_unusual_combination_of_usual_values():
    line = np.column_stack([np.linspace(-3, 3, 40)] * 2)
    assert not pull_inside(line, np.array([2.0, 2.0]))[1]
    assert pull_inside(line, np.array([2.0, -2.0]))[1]
    x = np.ones((9, 2))
    assert not pull_inside(x, np.array([1.0, 1.0 + 0.99 * SLACK]))[1]
    inside, moved = pull_inside(x, np.array([1.0, 9.0]))
    assert moved
    np.testing.assert_allclose(inside, [1, 1 + SLACK])
