"""Forecasts during training: what is known beforehand, what the curve adds, when there is nothing to say."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.convergence import forecast_convergence
from lightning_leep.forecast.running import update_forecast
from lightning_leep.records.curve import AccuracyCurve
from tests._helpers.simulated_transfers import make_record, make_report

PRIOR = AccuracyForecast(value=0.75, low=0.7, high=0.8, coverage=0.9, trainable="head", basis="9 rows")
VAGUE = dataclasses.replace(PRIOR, value=0.5, low=0.05, high=0.95)


def exponential(epochs, start=0.2, plateau=0.8, time_scale=2.0):
    return AccuracyCurve(
        tuple(epochs), tuple(plateau - (plateau - start) * math.exp(-epoch / time_scale) for epoch in epochs)
    )


def quick_history():
    curve = AccuracyCurve(tuple(range(1, 11)), (0.4, 0.6, 0.7, 0.74, 0.76, 0.77, 0.78, 0.785, 0.79, 0.795))
    return [make_record(curve=curve) for _ in range(6)]


def test_before_the_first_validation_it_is_the_forecast_itself_and_convergence_the_first_estimate_of_time():
    running = update_forecast(PRIOR, AccuracyCurve(), max_epochs=10)
    assert (running.low, running.value, running.high, running.coverage) == (0.7, 0.75, 0.8, 0.9)
    assert (running.eta_epochs, running.num_validations) == (None, 0)
    convergence = forecast_convergence(make_report(), quick_history())
    assert update_forecast(PRIOR, AccuracyCurve(), convergence=convergence).eta_epochs == 9
    assert update_forecast(PRIOR, AccuracyCurve(), convergence=convergence, max_epochs=4).eta_epochs == 4
    one = update_forecast(VAGUE, AccuracyCurve((1,), (0.4,)), convergence=convergence, max_epochs=40)
    assert one.eta_epochs == pytest.approx(9 - 1, abs=2)
    # Two validations alone say nothing of the time scale.
    assert update_forecast(PRIOR, exponential((1, 2)), max_epochs=20).eta_epochs is None
    assert update_forecast(PRIOR, exponential((1, 2, 3)), max_epochs=20).eta_epochs is not None
    flat = AccuracyCurve((1, 2, 3), (0.5, 0.52, 0.51))  # it may be over, or rise for 15 epochs
    assert update_forecast(VAGUE, flat, max_epochs=20).eta_epochs is None


@pytest.mark.parametrize(("prior", "end"), [(PRIOR, 30), (VAGUE, 15), (None, 15)])
def test_an_exponential_curve_is_continued(prior, end):
    """0.8 - 0.6 exp(-t / 2) is at 99% of 0.8 at t = 2 log(75) = 8.63."""
    running = update_forecast(prior, exponential([k / 2 for k in range(1, 13)]), max_epochs=end)
    assert running.low <= 0.8 <= running.high
    assert running.value == pytest.approx(0.8, abs=0.01)
    assert running.high - running.low < 0.15
    assert running.eta_epochs == pytest.approx(2 * math.log(75) - 6, abs=0.8)


def test_without_a_forecast_any_accuracy_is_possible_at_first():
    running = update_forecast(None, AccuracyCurve(), max_epochs=10)
    assert (running.low, running.value, running.high, running.coverage) == (0, 0.5, 1, 0.9)
    running = update_forecast(None, AccuracyCurve((1,), (0.3,)), max_epochs=10)
    assert running.low < 0.45
    assert running.high > 0.8


def test_a_curve_that_contradicts_the_forecast_wins():
    running = update_forecast(
        PRIOR, AccuracyCurve(tuple(range(1, 9)), (0.3, 0.35, 0.37, 0.38) + (0.38,) * 4), max_epochs=10
    )
    assert running.high < PRIOR.low


@pytest.mark.parametrize("end", [3, 2.5])
def test_a_run_that_is_over_is_certain(end):
    running = update_forecast(PRIOR, AccuracyCurve((1, 2, 3), (0.5, 0.8, 0.6)), max_epochs=end)
    assert (running.low, running.value, running.high, running.eta_epochs) == (0.8, 0.8, 0.8, 0)


def test_epochs_and_rows_have_to_be_positive():
    for value in (0, -1, math.nan):
        for name in ("max_epochs", "test_size"):
            with pytest.raises(ValueError, match=f"`{name}`"):
                update_forecast(PRIOR, AccuracyCurve(), **{name: value})


@pytest.mark.slow
@example(accuracy=[0.0] * 6, end=10, ends=(0.0, 0.0, 0.0))
@example(accuracy=[1.0] * 6, end=10, ends=(1.0, 1.0, 1.0))
@given(
    accuracy=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    end=st.one_of(st.none(), st.floats(0.5, 50)),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=40, deadline=None)
def test_bounds(accuracy, end, ends):
    low, value, high = sorted(ends)
    prior = dataclasses.replace(PRIOR, value=value, low=low, high=high)
    curve = AccuracyCurve(tuple(range(1, len(accuracy) + 1)), tuple(accuracy))
    running = update_forecast(prior, curve, max_epochs=end)
    assert max(accuracy) <= running.low <= running.value <= running.high <= 1
    if low == high == max(accuracy) == min(accuracy):
        assert running.value == pytest.approx(low, abs=0.02)
    if running.eta_epochs is not None:
        assert 0 <= running.eta_epochs < math.inf
        assert end is None or running.eta_epochs <= max(0, end - len(accuracy))


def test_epochs_are_only_a_unit():
    """The same curve on a slower clock: the same accuracies, and times in proportion."""
    curve = exponential(range(1, 7))
    slow = AccuracyCurve(tuple(10 * epoch for epoch in curve.epochs), curve.accuracy)
    first, second = update_forecast(PRIOR, curve, max_epochs=12), update_forecast(PRIOR, slow, max_epochs=120)
    assert (first.low, first.value, first.high) == pytest.approx((second.low, second.value, second.high))
    assert second.eta_epochs == pytest.approx(10 * first.eta_epochs)


EPOCHS = 15


def simulated_runs(shape, rows, number):
    """Accuracies on ``rows`` rows (None: without noise) of runs that are none of the model's curves, with forecasts.

    The forecasts are calibrated: the best accuracy is normal around them, and their 90% intervals are 0.2 wide.
    """
    rng = np.random.default_rng(0)
    t = np.arange(1, EPOCHS + 1)
    for _ in range(number):
        final, start, scale = rng.uniform(0.55, 0.85), rng.uniform(0.2, 0.4), np.exp(rng.uniform(0.3, 1.5))
        left = {
            "stretched": np.exp(-((t / scale) ** rng.uniform(0.6, 1.2))),
            "cosine": 0.6 * np.exp(-t / scale) + 0.4 * (1 + np.cos(np.pi * t / EPOCHS)) / 2,
        }[shape]
        heights = final - (final - start) * left
        accuracy = heights if rows is None else rng.binomial(rows, heights) / rows
        centre = float(np.clip(accuracy.max() + 0.1 / 1.645 * rng.normal(), 0.05, 0.95))
        yield (
            accuracy,
            dataclasses.replace(PRIOR, value=centre, low=max(0.0, centre - 0.1), high=min(1.0, centre + 0.1)),
        )


def forecast_after(number, accuracy, prior, rows):
    curve = AccuracyCurve(tuple(range(1, number + 1)), tuple(accuracy[:number]))
    return update_forecast(prior, curve, max_epochs=EPOCHS, test_size=rows)


#: By shape and rows, the best accuracy of each run and its forecasts after 3 to 13 epochs, or after some of them.
SIMULATED = {("stretched", None): (3, 6, 10), ("cosine", 40): (3, 6, 10)}
SIMULATED |= {("cosine", 500): tuple(range(3, EPOCHS - 1))}


@cache
def forecasts_of(shape, rows):
    number_of_runs = {None: 25, 40: 40, 500: 16}[rows]  # few rows are noisy
    return [
        (accuracy.max(), {number: forecast_after(number, accuracy, prior, rows) for number in SIMULATED[shape, rows]})
        for accuracy, prior in simulated_runs(shape, rows, number_of_runs)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "rows"), SIMULATED)
def test_coverage_on_runs_of_another_shape(shape, rows):
    """Intervals hold the best accuracy about as often as they say, and are no wider than that takes."""
    held, widths = [], []
    for best, forecasts in forecasts_of(shape, rows):
        intervals = [forecasts[number] for number in (3, 6, 10)]
        held.append([r.low <= best <= r.high for r in intervals])
        widths.append([r.high - r.low for r in intervals])
    coverage, width = np.mean(held, axis=0), np.mean(widths, axis=0)
    assert (coverage >= 0.9 - 2 * math.sqrt(0.09 / 50)).all()
    assert 0.87 <= coverage.mean() <= 0.99
    assert 0.2 * 1.15 > width[0] > width[1] > width[2]
    assert width[2] < 0.2 * 0.75


@pytest.mark.slow
def test_four_exclusions_in_a_row_are_rarely_wrong():
    """Of the accuracy that is reached in the end in at most 5% of runs, of one far above it in nearly all."""
    wrong, right = [], []
    for best, forecasts in forecasts_of("cosine", 500):
        highs = np.array([forecast.high for forecast in forecasts.values()])
        for targets, verdicts in ((best - 0.01, wrong), (best + 0.2, right)):
            below = highs < targets
            verdicts.append((below[:-3] & below[1:-2] & below[2:-1] & below[3:]).any())
    assert np.mean(wrong) <= 0.05
    assert np.mean(right) >= 0.9
