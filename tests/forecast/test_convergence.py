"""Convergence forecasts: kernel weights, averages and medians by hand, references, corner cases."""

import dataclasses
import math

import numpy as np
import pytest

from lightning_leep.forecast import convergence as module
from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.convergence import forecast_convergence
from lightning_leep.forecast.mean_curve import average_curves, effective_number, with_references
from lightning_leep.records.curve import AccuracyCurve
from tests._helpers.simulated_transfers import make_record, make_report

Z80 = 1.2815515655446004


def record(leep, accuracy, epochs=None, **values):
    epochs = tuple(range(1, len(accuracy) + 1)) if epochs is None else epochs
    return make_record(curve=AccuracyCurve(epochs, tuple(accuracy)), report=make_report(leep=leep), **values)


def test_average_by_hand():
    """Weights 1 and 3 of 0.2 and 0.6: mean 0.5, variance 0.03 / (1 - 10/16) = 0.08, effective number 1.6."""
    average = average_curves([((1, 2), (0.2, 0.4)), ((1, 2), (0.6, 0.4))], np.array([1.0, 3.0]), 0.8, (0, 1))
    assert average.epochs == (1, 2)
    assert average.mean == pytest.approx((0.5, 0.4))
    half = Z80 * math.sqrt(0.08 * (1 + 1 / 1.6))
    assert average.low == pytest.approx((0.5 - half, 0.4))
    assert average.high == pytest.approx((0.5 + half, 0.4))
    assert average.num_curves == 2


def test_average_where_most_were_measured():
    """Nothing is continued beyond its last validation, and a minority does not decide."""
    curves = [((1, 3), (0.2, 0.6)), ((2, 3), (0.5, 0.7)), ((1, 2, 3, 9), (0.0, 0.3, 0.2, 1.0))]
    average = average_curves(curves, np.ones(3), 0.8, (0, 1))
    assert average.epochs == (1, 2, 3)
    assert average.mean == pytest.approx((0.1, 0.4, 0.5))  # the first curve is at 0.4 half-way
    assert average_curves([((1, 2), (0, 1)), ((5, 6), (0, 1))], np.ones(2), 0.8, (0, 1)) is None
    assert average_curves(curves, np.array([1.0, 0.0, 0.0]), 0.8, (0, 1)) is None


@pytest.mark.parametrize("size", [5, 12, 50])
def test_weights_are_gaussian_with_the_wanted_effective_number(size):
    distances = np.random.default_rng(size).normal(size=size)
    wanted = max(5, size / 5)
    weights = module._kernel_weights(distances, wanted)
    if size == 5:
        np.testing.assert_allclose(weights, 1, atol=1e-3)
        return
    assert effective_number(weights) == pytest.approx(wanted, rel=1e-3)
    # log w = const - distance^2 / (2 bandwidth^2), one bandwidth for all that weigh anything
    seen = weights > 1e-200
    slope, constant = np.polyfit(distances[seen] ** 2, np.log(weights[seen]), 1)
    assert slope < 0
    np.testing.assert_allclose(slope * distances[seen] ** 2 + constant, np.log(weights[seen]), atol=1e-6)


def test_records_near_in_leep_decide():
    slow = [record(-2 + 0.01 * i, (0.1, 0.2, 0.3, 0.4, 0.8)) for i in range(10)]
    quick = [record(-0.5 + 0.01 * i, (0.7, 0.8, 0.8, 0.8, 0.8)) for i in range(10)]
    low, high = (forecast_convergence(make_report(leep=leep), slow + quick) for leep in (-1.95, -0.45))
    assert low.epochs_to_90_percent == pytest.approx(5)
    assert high.epochs_to_90_percent == pytest.approx(2)
    assert low.epochs_to_50_percent == pytest.approx(4)
    assert high.epochs_to_50_percent == pytest.approx(1)
    assert low.relative.mean == pytest.approx((0.125, 0.25, 0.375, 0.5, 1.0))
    assert high.relative.mean == pytest.approx((0.875, 1, 1, 1, 1))
    assert (low.num_records, low.difference, low.epoch_passing_reference) == (20, None, None)
    assert "scratch" not in low.describe()
    assert low.effective_records == pytest.approx(5, rel=1e-3)
    assert not low.out_of_range
    middle = forecast_convergence(make_report(leep=-1.2), slow + quick)
    assert low.epochs_to_90_percent > middle.epochs_to_90_percent > high.epochs_to_90_percent


def test_far_outside_the_nearest_records_decide_and_it_is_said():
    records = [record(-2 + 0.1 * i, (0.1 + 0.05 * i, 0.8)) for i in range(10)]
    for leep, start in ((-1e3, 0.1), (1e3, 0.55)):
        forecast = forecast_convergence(make_report(leep=leep), records)
        assert forecast.out_of_range
        assert "from 10 earlier transfers, none of them with a LEEP like this one's." in forecast.describe()
        assert forecast.relative.mean[0] == pytest.approx(start / 0.8, abs=0.15)
        assert np.isfinite(forecast.relative.low).all()


def test_reference_is_passed_at_the_weighted_median():
    """Five alike: passed at epochs 1, 2, 2, never, never -> 2; with one more never -> None."""
    curve = (0.3, 0.5, 0.6)
    references = [0.2, 0.4, 0.4, 0.9, 0.9]
    records = [record(-1, curve, reference=r) for r in references]
    forecast = forecast_convergence(make_report(leep=-1), records)
    assert forecast.epoch_passing_reference == 2
    assert forecast.difference.mean == pytest.approx([a - np.mean(references) for a in curve])
    records += [record(-1, curve, reference=0.9) for _ in range(2)]
    assert forecast_convergence(make_report(leep=-1), records).epoch_passing_reference is None
    assert "never above" in forecast_convergence(make_report(leep=-1), records).describe()


SCRATCH = {"trainable": "scratch", "target_name": "a"}


def references(target, *scratch):
    """What a record trained otherwise is compared with."""
    return with_references([*scratch, target])[-1].reference


def test_scratch_runs_of_the_same_data_are_the_references():
    """The latest by time, not by text: 12:00 five hours east of Greenwich is an hour before 08:00 there."""
    east = record(-1, (0.1, 0.2), **SCRATCH, created="2026-01-01T12:00:00+05:00")
    greenwich = record(-1, (0.2, 0.3), **SCRATCH, created="2026-01-01T08:00:00+00:00")
    records = [record(-1, (0.5, 0.7), target_name="a") for _ in range(5)]
    for order in ((east, greenwich), (greenwich, east)):
        assert references(records[0], *order) == greenwich.curve
    forecast = forecast_convergence(make_report(leep=-1), [greenwich, east, *records])
    assert forecast.num_records == 5
    assert forecast.difference.mean == pytest.approx((0.3, 0.4))
    assert forecast.epoch_passing_reference == 1


def test_references_are_complete_runs_on_the_same_rows():
    """The name alone may be that of a class that wraps any data."""
    scratch, target = record(-1, (0.2, 0.3), **SCRATCH), record(-2, (0.5,), target_name="a")
    assert references(target, scratch) == scratch.curve
    for report in (make_report(5, 5000), make_report(9), make_report(class_counts=(10, 90, 50, 50, 50))):
        assert references(dataclasses.replace(target, report=report), scratch) is None
    assert references(record(-2, (0.5,), target_name="b"), scratch) is None
    assert references(record(-2, (0.5,)), dataclasses.replace(scratch, target_name="")) is None
    assert references(dataclasses.replace(target, reference=0.9), scratch) == 0.9
    assert references(target, dataclasses.replace(scratch, complete=False), record(-1, (), **SCRATCH)) is None


def test_training_from_scratch_is_not_compared_with_itself():
    records = [record(-1, (0.2, 0.3), **SCRATCH) for _ in range(6)]
    assert [r.reference for r in with_references(records)] == [None] * 6
    forecast = forecast_convergence(make_report(leep=-1), records, trainable="scratch")
    assert forecast.num_records == 6
    assert forecast.difference is None


def test_from_scratch_the_source_decides_nothing():
    """Records are near by the entropy of the labels: those of as many classes, whatever LEEP."""
    rng = np.random.default_rng(0)
    records = []
    for classes, curve in ((2, (0.7, 0.8)), (50, (0.1, 0.8))):
        for _ in range(10):
            report = make_report(classes, leep=-rng.uniform(0, 3))
            records.append(make_record(curve=AccuracyCurve((1, 2), curve), report=report, trainable="scratch"))
    for leep in (-0.1, -3.9, math.nan):
        for classes, start in ((2, 0.875), (50, 0.125)):
            forecast = forecast_convergence(make_report(classes, leep=leep), records, trainable="scratch")
            assert forecast.relative.mean == pytest.approx((start, 1))
            assert not forecast.out_of_range
    outside = forecast_convergence(make_report(1000), records, trainable="scratch")
    assert outside.describe().endswith(
        "from 20 earlier transfers, none of them with a number of classes like this one's."
    )


def test_repeated_runs_count_once():
    """Ten runs of a slow transfer beside five quick ones of others are one of six."""
    slow = [record(-1, (0.2, 0.8), created=f"2026-01-{day:02d}T00:00:00+00:00") for day in range(10, 20)]
    quick = [record(-1.5 + 0.01 * i, (0.8, 0.8)) for i in range(5)]
    forecast = forecast_convergence(make_report(leep=-1.2), slow + quick)
    assert forecast.num_records == 6
    assert "from 6 earlier transfers." in forecast.describe()
    again = forecast_convergence(make_report(leep=-1), slow + quick)
    assert (again.num_records, again.relative.mean[0]) == (10, 0.25)
    assert "from 10 earlier runs of the same transfer." in again.describe()
    assert forecast_convergence(make_report(leep=-1.2), slow) is None


def test_too_few_records_say_nothing():
    assert forecast_convergence(make_report(), [record(-1, (0.5, 0.7))] * 4) is None
    assert forecast_convergence(make_report(), None) is None
    with pytest.raises(ValueError, match="`coverage`"):
        forecast_convergence(make_report(), [], coverage=80)


def test_only_records_with_comparable_curves_count():
    good = [record(-1 - 0.01 * i, (0.5, 0.7)) for i in range(4)]
    useless = [
        record(-2, (0.5, 0.7), trainable="all"),
        dataclasses.replace(record(-2, (0.5, 0.7)), complete=False),
        record(-2, (0.5,)),
        record(-2, ()),
        record(-2, (0.0, 0.0)),
        record(math.nan, (0.5, 0.7)),
    ]
    assert forecast_convergence(make_report(), good + useless) is None
    assert forecast_convergence(make_report(), [*good, *useless, record(-3, (0.5, 0.7))]).num_records == 5
    more = [record(-1.5 - 0.01 * i, (0.5, 0.7)) for i in range(4)]
    assert forecast_convergence(make_report(leep=math.nan), good + more) is None
    assert forecast_convergence(make_report(), good + more) is not None


def test_expected_accuracy_per_epoch():
    """At the end only the accuracy is uncertain; a certain accuracy leaves the band of the speed."""
    records = [record(-1, (0.2 + 0.02 * i, 0.8)) for i in range(6)]
    speed = forecast_convergence(make_report(leep=-1), records)
    height = AccuracyForecast(value=0.6, low=0.5, high=0.65, coverage=0.8, trainable="head", basis="")
    expected = speed.accuracy(height)
    assert (expected.mean[-1], expected.low[-1], expected.high[-1]) == pytest.approx((0.6, 0.5, 0.65))
    certain = speed.accuracy(dataclasses.replace(height, low=0.6, high=0.6))
    for name in ("mean", "low", "high"):
        assert getattr(certain, name) == pytest.approx([0.6 * v for v in getattr(speed.relative, name)])
    wider = speed.accuracy(dataclasses.replace(height, coverage=0.9))  # the same ends were meant for more
    assert wider.high[-1] == pytest.approx(0.6 + 0.05 * Z80 / 1.6448536269514722)
    bold = speed.accuracy(dataclasses.replace(height, low=0.1, high=1.0, coverage=0.3))
    assert (min(bold.low), max(bold.high)) == (0, 1)
