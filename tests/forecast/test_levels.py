"""The paper's levels: equal widths, averages, empty levels."""

import math

import pytest

from lightning_leep.forecast.mean_curve import leep_levels
from lightning_leep.records.curve import AccuracyCurve
from tests._helpers.simulated_transfers import make_record, make_report


def record(leep, *accuracy, **values):
    curve = AccuracyCurve(tuple(range(1, len(accuracy) + 1)), accuracy)
    return make_record(curve=curve, report=make_report(leep=leep), **values)


def test_equal_widths_and_averages():
    """LEEP from -5 to 0: levels of width 1; an inner edge belongs to the level above, the maximum to the highest."""
    records = [
        record(-5.0, 0.1, 0.2, reference=0.1),
        record(-4.5, 0.3, 0.4, reference=0.1),
        record(-4.0, 0.5, 0.5),
        record(-1.01, 0.6, 0.7, reference=AccuracyCurve((1, 2), (0.5, 0.5))),
        record(0.0, 0.8, 0.9),
        record(-0.5, 0.6, 0.7),
    ]
    left_out = [record(-9, 0.1, 0.2, complete=False), record(-9, 0.1, 0.1, trainable="scratch")]
    levels = leep_levels([*left_out, *records])
    assert [level.level for level in levels] == [1, 2, 4, 5]
    assert [(level.low, level.high) for level in levels] == [(-5, -4), (-4, -3), (-2, -1), (-1, 0)]
    assert [level.records for level in levels] == [
        tuple(records[:2]),
        (records[2],),
        (records[3],),
        tuple(records[4:]),
    ]
    lowest, second, _, highest = levels
    assert lowest.accuracy.mean == pytest.approx((0.2, 0.3))
    assert lowest.difference.mean == pytest.approx((0.1, 0.2))
    assert highest.accuracy.mean == pytest.approx((0.7, 0.8))
    assert highest.difference is None
    assert second.accuracy is None  # one curve is no average


def test_corner_cases():
    assert leep_levels([]) == leep_levels([record(-1, 0.1, 0.2, complete=False)]) == ()
    assert leep_levels([record(math.nan, 0.5), record(-1)]) == ()
    (alike,) = leep_levels([record(-1, 0.5, 0.6), record(-1, 0.7, 0.8)])
    assert alike.accuracy.mean == pytest.approx((0.6, 0.7))
    with pytest.raises(ValueError, match="`levels`"):
        leep_levels([], levels=0)
