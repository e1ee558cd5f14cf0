"""Accuracy forecasts: by hand without a history; with one, coverage, learning, comparability, corner cases."""

import dataclasses
import math
import re

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_leep.forecast.accuracy import forecast_accuracy, wilson_interval
from lightning_leep.forecast.transfer_point import HEAD_MODEL_ERROR, OTHER_MODEL_ERROR, from_logit, logit
from lightning_leep.records import AccuracyCurve
from tests._helpers.simulated_transfers import make_record, make_report, simulate_history


def held(forecast, record) -> bool:
    return forecast.low <= record.achieved <= forecast.high


def history_of(seed, size, **options):
    return simulate_history(np.random.default_rng(seed), size, **options)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("n", [1, 20, 5000])
@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.99])
def test_wilson_interval(p, n, coverage):
    """Its ends q are where |p - q| = z sqrt(q (1 - q) / n)."""
    z = scipy.stats.norm.ppf((1 + coverage) / 2)
    low, high = wilson_interval(p, n, coverage)
    for q in (low, high):
        assert abs(p - q) == pytest.approx(z * math.sqrt(q * (1 - q) / n), abs=1e-9)
    assert low <= p <= high


@given(st.integers(0, 50), st.integers(1, 50), st.floats(-20, 20))
def test_logit_and_back(k, n, value):
    assert from_logit(logit(min(k, n) / n, n), n) == pytest.approx(min(k, n) / n, abs=1e-9)
    assert 0 <= from_logit(value, n) <= 1
    assert (from_logit(-math.inf, n), from_logit(math.inf, n)) == (0, 1)


@pytest.mark.parametrize(("trainable", "error"), [("head", HEAD_MODEL_ERROR), ("all", OTHER_MODEL_ERROR)])
def test_without_history_by_hand(trainable, error):
    """250 rows, probe 0.7, 500 test rows: Wilson's interval from 1 / (1/250 + 1/500 + tau^2 p (1 - p)) rows."""
    forecast = forecast_accuracy(make_report(probe=0.7), trainable=trainable, test_size=500)
    p = (0.7 * 250 + 0.5) / 251
    rows = 1 / (1 / 250 + 1 / 500 + error**2 * p * (1 - p))
    z = scipy.stats.norm.ppf(0.95)
    centre = (0.7 + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(0.21 / rows + z**2 / (4 * rows**2))
    assert forecast.value == 0.7
    assert (forecast.low, forecast.high) == pytest.approx((centre - half, centre + half), abs=1e-12)
    assert (forecast.coverage, forecast.num_records, forecast.out_of_range) == (0.9, 0, False)
    assert forecast.basis == "a linear probe on 250 rows"
    assert any("rough guess" in note for note in forecast.notes) == (trainable == "all")
    assert sum("a shorter run reaches less" in note for note in forecast.notes) == 1


def test_rows_that_are_not_known_or_not_asked_about():
    unknown, same = (forecast_accuracy(make_report(), test_size=size) for size in (None, 250))
    assert (unknown.low, unknown.high) == (same.low, same.high)
    assert any("measured on 250 rows" in note for note in unknown.notes)
    assert not any("measured on" in note for note in same.notes)
    asked = forecast_accuracy(make_report(linear_probe_samples=100), test_size=250)
    plain = forecast_accuracy(make_report(num_classes=5, rows_per_class=20), test_size=250)
    assert (asked.low, asked.high) == (plain.low, plain.high)


@pytest.mark.parametrize("probe", [None, math.nan])
def test_without_features_the_predictor_is_a_lower_bound(probe):
    forecast = forecast_accuracy(make_report(probe=probe, eep_accuracy=0.4), test_size=500)
    assert forecast.low < forecast.value == 0.4
    assert forecast.high == 1
    assert "lower bound" in forecast.basis
    assert any("has no upper end" in note for note in forecast.notes)
    assert forecast_accuracy(make_report(probe=probe, eep_accuracy=math.nan)) is None


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"coverage": 90}, "coverage"), ({"coverage": 0}, "coverage"), ({"test_size": 0}, "test_size")],
)
def test_invalid_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        forecast_accuracy(make_report(), **arguments)


@pytest.mark.slow
@given(
    probe=st.floats(0, 1),
    classes=st.integers(2, 50),
    rows=st.integers(1, 100),
    test=st.one_of(st.none(), st.integers(1, 10**6)),
    seed=st.integers(0, 50),
    size=st.sampled_from([0, 1, 2, 8, 9, 25]),
)
@settings(deadline=None, max_examples=40)
def test_bounds(probe, classes, rows, test, seed, size):
    history = history_of(seed, size)
    report = make_report(classes, rows, probe=probe)
    narrow, wide = (forecast_accuracy(report, history, coverage=c, test_size=test) for c in (0.8, 0.9))
    for forecast in (narrow, wide):
        assert 0 <= forecast.low <= forecast.value <= forecast.high <= 1
    if (narrow.num_records == 0) == (wide.num_records == 0):
        assert wide.low <= narrow.low + 1e-12
        assert narrow.high <= wide.high + 1e-12


@pytest.mark.slow
def test_coverage_and_error_on_exchangeable_transfers():
    """A recipe that beats the probe by 0.3 logits: a history finds that out, and 90% means 90%."""
    rng = np.random.default_rng(5)
    errors, covered, prior_errors = [], [], []
    for _ in range(120):
        *history, record = simulate_history(rng, 31, bias=0.3)
        forecast = forecast_accuracy(record.report, history, test_size=record.test_size)
        assert forecast.num_records == 30
        errors.append(abs(forecast.value - record.achieved))
        prior_errors.append(abs(record.report.linear_probe_accuracy - record.achieved))
        covered.append(held(forecast, record))
    assert np.mean(errors) < 0.6 * np.mean(prior_errors)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.055)  # 2 standard errors


@pytest.mark.slow
def test_repeated_transfers_do_not_narrow_the_interval():
    """A sweep over each task is evidence of the size of the tasks, not of the runs."""
    rng = np.random.default_rng(8)
    covered = []
    for _ in range(120):
        history = simulate_history(rng, 10, runs=4, model_error=0.4)
        (record,) = simulate_history(rng, 1, model_error=0.4)
        forecast = forecast_accuracy(record.report, history, test_size=record.test_size)
        assert forecast.num_records == 10
        covered.append(held(forecast, record))
    # Widened outside the history, so rather too often than not; 2 standard errors are 0.055.
    assert 0.9 - 0.055 <= np.mean(covered) <= 0.97


@pytest.mark.slow
def test_a_transfer_that_was_run_often_is_forecast_from_its_own_runs():
    """What is special about one transfer, 0.4 logits in the history, is known of this one: narrow, and still 90%."""
    rng = np.random.default_rng(10)
    covered, widths, other_widths = [], [], []
    for _ in range(100):
        others = simulate_history(rng, 20, model_error=0.4)
        *own, last = simulate_history(rng, 1, runs=13, model_error=0.4)
        forecast = forecast_accuracy(last.report, [*own, *others], test_size=last.test_size)
        assert forecast.basis.startswith("12 earlier runs of the same transfer and a linear probe on ")
        assert (forecast.num_records, forecast.out_of_range) == (12, False)
        covered.append(held(forecast, last))
        widths.append(forecast.high - forecast.low)
        other = forecast_accuracy(last.report, others, test_size=last.test_size)
        other_widths.append(other.high - other.low)
    assert 0.9 - 0.06 <= np.mean(covered) <= 0.97
    assert np.mean(widths) < 0.5 * np.mean(other_widths)


@pytest.mark.parametrize(
    ("size", "runs", "said"),
    [(0, 1, None), (1, 1, "1 comparable transfer;"), (8, 1, "8 comparable transfers;"), (5, 8, "5 .* in 40 runs;")],
)
def test_few_records_fall_back_to_the_probe_and_say_how_many_it_takes(size, runs, said):
    report = make_report(20, 60, probe=0.6)
    prior = forecast_accuracy(report, test_size=500)
    forecast = forecast_accuracy(report, history_of(0, size, runs=runs, bias=2.0), test_size=500)
    assert dataclasses.replace(forecast, notes=prior.notes) == prior
    assert forecast.notes[: len(prior.notes)] == prior.notes
    if said:
        assert re.search(f"The history has {said} a forecast needs 9", forecast.notes[-1])
    learned = forecast_accuracy(report, history_of(0, 9, bias=2.0), test_size=500)
    assert learned.value > prior.high
    assert learned.notes == ()  # what earlier runs achieved is known however short they were
    assert learned.basis == "9 earlier transfers and a linear probe on 1200 rows"


def test_only_comparable_transfers_count():
    history = history_of(1, 10)
    others = [
        make_record(0.99, trainable="all"),
        make_record(0.2, complete=False),
        make_record(report=make_report(probe=None)),
        make_record(curve=AccuracyCurve()),
        make_record(report=make_report(probe=None, eep_accuracy=math.nan)),
    ]
    report = make_report(10, 50)
    expected = forecast_accuracy(report, history)
    assert forecast_accuracy(report, [*history, *others]) == expected
    backwards = forecast_accuracy(report, [*others, *reversed(history)])  # in any order
    ends = (expected.low, expected.value, expected.high)
    assert (backwards.low, backwards.value, backwards.high) == pytest.approx(ends, abs=1e-9)
    assert forecast_accuracy(report, history, trainable="all").num_records == 0
    assert forecast_accuracy(make_report(probe=None), history).num_records == 0


def test_histories_without_features_are_learned_from_as_well():
    history = []
    for truth in np.random.default_rng(2).uniform(0.3, 0.9, 30):
        report = make_report(probe=None, eep_accuracy=0.5 * truth)
        curve = AccuracyCurve((1, 2), (truth, truth / 2))  # the best counts
        history.append(make_record(curve=curve, report=report, test_size=2000))
    forecast = forecast_accuracy(make_report(probe=None, eep_accuracy=0.3), history, test_size=2000)
    assert forecast.value == pytest.approx(0.6, abs=0.05)
    assert forecast.high < 0.75
    assert "expected empirical predictor" in forecast.basis


def test_outside_the_history_the_interval_widens_and_says_why():
    rng = np.random.default_rng(4)
    history = [
        make_record(rng.binomial(500, t) / 500, report=make_report(5, 50, rng.binomial(250, t) / 250), test_size=500)
        for t in rng.uniform(0.5, 0.9, 30)
    ]
    far = make_report(400, 200, probe=0.7)
    forecast, prior = (forecast_accuracy(far, past, test_size=500) for past in (history, None))
    assert forecast.out_of_range
    assert forecast.low <= prior.low
    assert forecast.high > prior.high
    assert "400 classes (most in the history: 5 classes)" in forecast.notes[0]
    assert "200.0 rows a class (most in the history: 50.0 rows a class)" in forecast.notes[0]
    near = forecast_accuracy(make_report(5, 50, probe=0.7), history, test_size=500)
    assert (near.out_of_range, near.notes) == (False, ())
    odd = make_record(0.3, report=make_report(1000, 1000, probe=0.3), test_size=500)
    again = forecast_accuracy(far, [*history, odd], test_size=500)
    assert again.out_of_range
    assert "unusual combination" in again.notes[0]
    # Accuracies that fall by 0.08 a class, from 2 to 6 classes, do not fall on to 0 at 400 classes.
    steep = [make_record(0.9 - 0.08 * (i % 5), report=make_report(2 + i % 5, 50, 0.7 + i / 500)) for i in range(30)]
    assert forecast_accuracy(make_report(400, 50, probe=0.7), steep).value > 0.3


@pytest.mark.parametrize("achieved", [0.0, 1.0])
def test_perfect_and_hopeless_transfers(achieved):
    history = [make_record(achieved, report=make_report(probe=achieved), test_size=100) for _ in range(20)]
    forecast = forecast_accuracy(make_report(probe=achieved), history, test_size=100)
    assert forecast.value == pytest.approx(achieved, abs=0.01)
    assert forecast.low <= achieved <= forecast.high


def test_scores_that_are_missing_do_no_harm():
    history = history_of(7, 20)
    holes = [dataclasses.replace(r, report=dataclasses.replace(r.report, leep=math.nan)) for r in history[:10]]
    report = make_report(10, 50, leep=math.nan, leave_one_out_leep=math.nan)
    for past in (history, holes + history[10:], holes):
        forecast = forecast_accuracy(report, past, test_size=500)
        assert 0 <= forecast.low <= forecast.value <= forecast.high <= 1
        assert not forecast.out_of_range


def test_sentence():
    forecast = forecast_accuracy(make_report(), test_size=500)
    interval = f"90% interval {forecast.low:.3f} to {forecast.high:.3f}"
    expected = f"Training the head is expected to reach accuracy 0.700 ({interval}), from a linear probe on 250 rows."
    assert forecast.describe() == expected
    mine = dataclasses.replace(forecast, coverage=0.755, trainable="mine").describe()
    assert mine.startswith("Training 'mine' is expected to reach")
    assert "75.5% interval" in mine
