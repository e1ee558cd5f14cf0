"""Shapes of learning curves against the formula in the docstring."""

import math

import numpy as np
import pytest
import scipy.optimize

from lightning_leep.forecast.statistics.curve_shapes import EXPONENTS, SCHEDULE_SHARES, CurveShapes, curve_shapes


def approach(t, time_scale, exponent):
    if math.isinf(t):
        return 0.0
    u = t / time_scale
    return math.exp(-u) if math.isinf(exponent) else (1 + u) ** -exponent


def left(t, time_scale, exponent, share, straight, end):
    at_the_end = approach(end, time_scale, exponent)
    saturating = (approach(t, time_scale, exponent) - at_the_end) / (1 - at_the_end)
    if share == 0:
        return saturating
    scheduled = 1 - t / end if straight else (1 + math.cos(math.pi * t / end)) / 2
    return (1 - share) * saturating + share * scheduled


def all_shapes(end):
    shapes, weights = curve_shapes(np.array([1.0, 2.0]), end)
    fields = zip(shapes.time_scale, shapes.exponent, shapes.share, shapes.straight, strict=True)
    return shapes, weights, list(fields)


@pytest.mark.parametrize("end", [12.0, math.inf])
def test_what_is_left(end):
    shapes, _, fields = all_shapes(end)
    epochs = np.array([0.0, 0.3, 2.0, 7.0, min(end, 1e300)])
    expected = [[left(t, *shape, end) for t in epochs] for shape in fields]
    np.testing.assert_allclose(shapes.left(epochs), expected, atol=1e-12)
    np.testing.assert_allclose(shapes.left(np.array([0.0, end])), [[1, 0]] * len(fields), atol=1e-12)


@pytest.mark.parametrize("end", [12.0, math.inf])
@pytest.mark.parametrize("share", [0.9, 0.1, 0.01])
def test_epoch_at_which_a_share_is_left(end, share):
    shapes, _, fields = all_shapes(end)
    if end == 12:
        np.testing.assert_allclose(shapes.epoch_of(np.ones(len(fields))), 0, atol=1e-6)
        np.testing.assert_allclose(shapes.epoch_of(np.zeros(len(fields))), 12, rtol=1e-6)
    found = shapes.epoch_of(np.full(len(fields), share))
    for epoch, shape in list(zip(found, fields, strict=True))[::7]:
        upper = min(end, 1e7 * shape[0])
        root = scipy.optimize.brentq(lambda t, shape=shape: left(t, *shape, end) - share, 0, upper)
        assert epoch == pytest.approx(root, rel=1e-3, abs=1e-5)


def test_shares_of_the_schedule_and_exponents_are_as_likely_as_said():
    endless, weights, _ = all_shapes(math.inf)
    assert not endless.share.any()
    assert weights.sum() == pytest.approx(1)
    shapes, weights, _ = all_shapes(12.0)
    assert weights.sum() == pytest.approx(1)
    for share, likely in SCHEDULE_SHARES:
        assert weights[shapes.share == share].sum() == pytest.approx(likely)
        if share:  # cosine and line are equally likely
            assert weights[(shapes.share == share) & shapes.straight].sum() == pytest.approx(likely / 2)
    for exponent, likely in EXPONENTS:
        assert weights[shapes.exponent == exponent].sum() == pytest.approx(likely)


def test_some_of_the_shapes():
    shapes = CurveShapes(np.array([1.0, 2.0]), np.array([1.0, math.inf]), np.zeros(2), np.zeros(2, bool), 5.0)
    chosen = shapes[np.array([1, 1, 0])]
    np.testing.assert_array_equal(chosen.left(np.array([3.0])), shapes.left(np.array([3.0]))[[1, 1, 0]])
