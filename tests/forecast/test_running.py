"""Forecasts during training: what is known beforehand, what the curve adds, when there is nothing to say."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.convergence import forecast_convergence
from lightning_leep.forecast.curve import AccuracyCurve
from lightning_leep.forecast.running import is_hopeless, update_forecast
from tests.forecast.simulate import make_record, make_report

PRIOR = AccuracyForecast(value=0.75, low=0.7, high=0.8, coverage=0.9, strategy="head", basis="9 rows")
VAGUE = dataclasses.replace(PRIOR, value=0.5, low=0.05, high=0.95)


def exponential(epochs, start=0.2, plateau=0.8, time_scale=2.0):
    return AccuracyCurve(
        tuple(epochs), tuple(plateau - (plateau - start) * math.exp(-epoch / time_scale) for epoch in epochs)
    )


def quick_history():
    curve = AccuracyCurve(tuple(range(1, 11)), (0.4, 0.6, 0.7, 0.74, 0.76, 0.77, 0.78, 0.785, 0.79, 0.795))
    return [make_record(curve=curve) for _ in range(6)]


def test_before_the_first_validation_it_is_the_forecast_itself():
    running = update_forecast(PRIOR, AccuracyCurve(), max_epochs=10)
    assert (running.low, running.value, running.high, running.coverage) == (0.7, 0.75, 0.8, 0.9)
    assert running.eta_epochs is None
    assert running.num_validations == 0


def test_convergence_of_earlier_transfers_is_the_first_estimate():
    convergence = forecast_convergence(make_report(), quick_history())
    assert update_forecast(PRIOR, AccuracyCurve(), convergence=convergence).eta_epochs == 9
    assert update_forecast(PRIOR, AccuracyCurve(), convergence=convergence, max_epochs=4).eta_epochs == 4


def test_one_point_hardly_moves_the_forecast():
    running = update_forecast(PRIOR, AccuracyCurve((1,), (0.5,)), max_epochs=20)
    assert running.value == pytest.approx(0.75, abs=0.01)
    assert running.high - running.low == pytest.approx(0.1, rel=0.35)


@pytest.mark.parametrize("number", [1, 2])
def test_two_validations_say_nothing_of_the_time_scale(number):
    curve = exponential(range(1, number + 1))
    assert update_forecast(PRIOR, curve, max_epochs=20).eta_epochs is None


@pytest.mark.parametrize("prior", [PRIOR, VAGUE])
def test_an_exponential_curve_is_continued(prior):
    """0.8 - 0.6 exp(-t / 2) is at 99% of 0.8 at t = 2 log(75) = 8.63."""
    running = update_forecast(prior, exponential([k / 2 for k in range(1, 13)]), max_epochs=30)
    assert running.low <= 0.8 <= running.high
    assert running.value == pytest.approx(0.8, abs=0.01)
    assert running.eta_epochs == pytest.approx(2 * math.log(75) - 6, abs=0.8)


def test_the_interval_narrows_as_epochs_come_in():
    widths = []
    for number in (4, 8, 12, 16):
        running = update_forecast(PRIOR, exponential(range(1, number + 1)), max_epochs=20)
        widths.append(running.high - running.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.3 * widths[0]


def test_a_curve_that_contradicts_the_forecast_wins():
    running = update_forecast(
        PRIOR, AccuracyCurve(tuple(range(1, 9)), (0.3, 0.35, 0.37, 0.38) + (0.38,) * 4), max_epochs=10
    )
    assert running.high < PRIOR.low
    assert is_hopeless(running, 0.7)
    assert not is_hopeless(PRIOR, 0.7)


def test_arrived():
    curve = AccuracyCurve(tuple(range(1, 13)), (0.5, 0.7) + (0.8,) * 10)
    assert update_forecast(PRIOR, curve, max_epochs=20).eta_epochs == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("end", [3, 2.5])
def test_a_run_that_is_over_is_certain(end):
    running = update_forecast(PRIOR, AccuracyCurve((1, 2, 3), (0.5, 0.8, 0.6)), max_epochs=end)
    assert (running.low, running.value, running.high, running.eta_epochs) == (0.8, 0.8, 0.8, 0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extreme_accuracies(value):
    extreme = dataclasses.replace(PRIOR, value=value, low=value, high=value)
    for number in (1, 3, 6):
        running = update_forecast(extreme, AccuracyCurve(tuple(range(number)), (value,) * number), max_epochs=10)
        assert 0 <= running.low <= running.value <= running.high <= 1
        assert running.value == pytest.approx(value, abs=0.02)
        assert running.eta_epochs is None or math.isfinite(running.eta_epochs)


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
    if running.eta_epochs is not None:
        assert running.eta_epochs >= 0
        assert end is None or running.eta_epochs <= max(0, end - len(accuracy))


def test_epochs_are_only_a_unit():
    """The same curve on a slower clock: the same accuracies, and times in proportion."""
    curve = exponential(range(1, 9))
    slow = AccuracyCurve(tuple(10 * epoch for epoch in curve.epochs), curve.accuracy)
    first, second = update_forecast(PRIOR, curve, max_epochs=20), update_forecast(PRIOR, slow, max_epochs=200)
    assert (first.low, first.value, first.high) == pytest.approx((second.low, second.value, second.high))
    assert second.eta_epochs == pytest.approx(10 * first.eta_epochs)


def test_coverage_on_runs_of_another_shape():
    """Stretched exponentials with correlated noise, which are none of the model's curves."""
    rng = np.random.default_rng(0)
    hits = {2: [], 5: [], 8: []}
    for _ in range(80):
        final, start = rng.uniform(0.5, 0.9), rng.uniform(0.05, 0.4)
        t = np.arange(1, 16)
        left = np.exp(-((t / np.exp(rng.uniform(0, 1.5))) ** rng.uniform(0.6, 1.2)))
        noise = 0.005 * np.convolve(rng.normal(size=17), np.ones(3) / math.sqrt(3), "valid")
        heights = np.clip(final - (final - start) * left + noise, 0, 1)
        centre = np.clip(heights.max() + 0.03 * rng.normal(), 0.05, 0.95)
        prior = dataclasses.replace(PRIOR, value=centre, low=centre - 0.05, high=centre + 0.05)
        for number, hit in hits.items():
            curve = AccuracyCurve(tuple(t[:number]), tuple(heights[:number]))
            running = update_forecast(prior, curve, max_epochs=15)
            hit.append(running.low <= heights.max() <= running.high)
    for hit in hits.values():
        assert np.mean(hit) >= 0.9 - 3 * math.sqrt(0.09 / 80)


@pytest.mark.parametrize("end", [0, -1, math.nan])
def test_epochs_have_to_be_positive(end):
    with pytest.raises(ValueError, match="`max_epochs`"):
        update_forecast(PRIOR, AccuracyCurve(), max_epochs=end)


@pytest.mark.parametrize("target", [-0.1, 70, math.nan])
def test_a_target_is_an_accuracy(target):
    with pytest.raises(ValueError, match="`target`"):
        is_hopeless(PRIOR, target)
