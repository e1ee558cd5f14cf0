"""Forecasts of training from scratch, which a history alone allows."""

import dataclasses
import math

import numpy as np
import pytest

from lightning_leep.forecast.accuracy import forecast_accuracy
from tests._helpers.simulated_transfers import make_record, make_report
from tests.forecast.test_accuracy import held, history_of


def scratch_history(seed, size, test_size=400):
    """From scratch: accuracy falls with the classes and rises with the rows, whatever the source's scores."""
    rng, records = np.random.default_rng(seed), []
    for _ in range(size):
        classes, rows = int(np.exp(rng.uniform(math.log(2), math.log(50)))), int(np.exp(rng.uniform(3, 5)))
        value = 1.0 - 0.9 * math.log(classes) + 0.5 * (math.log(rows) - 4) + 0.2 * rng.normal()
        report = make_report(classes, rows, probe=rng.uniform(), leep=-rng.uniform(0, math.log(classes)))
        achieved = rng.binomial(test_size, 1 / (1 + math.exp(-value))) / test_size
        records.append(make_record(achieved, trainable="scratch", report=report, test_size=test_size))
    return records


def from_scratch(report, history=None):
    return forecast_accuracy(report, history, trainable="scratch", test_size=400)


def test_from_scratch_nothing_of_the_source_counts():
    """Neither its probe nor its LEEP, of the new transfer or of the records, nor whether there were features."""
    history = scratch_history(0, 30)
    reports = [make_report(probe=p, leep=-s) for p, s in ((0.2, 0.1), (0.99, 1.5), (None, 1.0), (math.nan, math.nan))]
    reports.append(make_report(probe=None, eep_accuracy=math.nan))
    forecasts = [from_scratch(report, history) for report in reports]
    assert all(forecast == forecasts[0] for forecast in forecasts)
    assert forecasts[0].basis == "30 earlier transfers"
    blank = [dataclasses.replace(r, report=dataclasses.replace(r.report, linear_probe_accuracy=None)) for r in history]
    assert from_scratch(reports[0], blank) == forecasts[0]


@pytest.mark.slow
def test_from_scratch_classes_and_rows_are_learned_from():
    covered, errors, spread = [], [], []
    for seed in range(60):
        *history, last = scratch_history(seed, 31)
        forecast = from_scratch(last.report, history)
        if forecast is None:
            continue
        covered.append(held(forecast, last))
        errors.append(abs(forecast.value - last.achieved))
        spread.append(abs(np.mean([r.achieved for r in history]) - last.achieved))
    assert len(covered) >= 54
    assert np.mean(errors) < 0.4 * np.mean(spread)
    assert np.mean(covered) == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / len(covered)))


def test_from_scratch_needs_a_history_of_such_transfers():
    history = scratch_history(3, 30)
    assert from_scratch(make_report(), history[:9]).num_records == 9
    assert from_scratch(make_report()) is None
    assert from_scratch(make_report(), history[:8]) is None
    assert from_scratch(make_report(), history_of(0, 20)) is None
    for outside in (make_report(1000, 1000, probe=0.2), make_report(5, 50_000), make_report(5, 1)):
        assert from_scratch(outside, history) is None
