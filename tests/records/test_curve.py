"""Measures of a validation curve, by hand and as properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_leep.records import AccuracyCurve, convergence_scalars

CURVE = AccuracyCurve((1, 2, 4), (0.5, 0.9, 0.8))


@st.composite
def curves(draw):
    accuracy = draw(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    steps = draw(st.lists(st.floats(0.01, 5), min_size=len(accuracy), max_size=len(accuracy)))
    return AccuracyCurve(tuple(np.cumsum(steps).tolist()), tuple(accuracy))


def test_measures_by_hand():
    assert (CURVE.best, CURVE.final, len(CURVE)) == (0.9, 0.8, 3)
    # (0.5 + 0.9) / 2 * 1 + (0.9 + 0.8) / 2 * 2 = 2.4, over 3 epochs
    assert CURVE.area_under_curve() == pytest.approx(0.8, abs=1e-12)
    # 0.9 of 0.9 is 0.81; half of it, 0.45, was there at the first validation. No point between two of them.
    assert [CURVE.epochs_to(f) for f in (0.0, 0.5, 0.9, 1.0)] == [1, 1, 2, 2]
    assert (CURVE.epoch_reaching(0.9), CURVE.epoch_reaching(0.91)) == (2, None)
    longer = CURVE.append(5, 0.95)
    assert (CURVE.epochs, longer.epochs, longer.final) == ((1.0, 2.0, 4.0), (1.0, 2.0, 4.0, 5.0), 0.95)
    assert AccuracyCurve((1,), (0.3,)).area_under_curve() == 0.3
    assert AccuracyCurve((0, 1), (0.6, 0.7)).epochs_to(0.5) == 0


def test_difference_to_a_reference_reads_a_curve_between_its_validations_and_not_beyond_them():
    assert CURVE.difference_to(0.6) == pytest.approx((-0.1, 0.3, 0.2))
    reference = AccuracyCurve((2, 3, 5), (0.1, 0.2, 0.6))  # at 4: half way from 0.2 to 0.6
    assert CURVE.difference_to(reference) == (None, pytest.approx(0.8), pytest.approx(0.4))
    assert AccuracyCurve((6,), (1.0,)).difference_to(reference) == (None,)


def test_epoch_passing_compares_after_as_many_epochs():
    reference = AccuracyCurve((1, 2, 4), (0.5, 0.95, 0.79))
    assert CURVE.epoch_passing(reference) == 4  # as good at 1, behind at 2
    assert CURVE.epoch_passing(0.85) == 2
    assert CURVE.epoch_passing(0.9) is None  # equal is not past


def test_scalars_of_a_curve():
    scalars = convergence_scalars(CURVE, predicted=0.6, reference=AccuracyCurve((1, 2, 4), (0.6, 0.7, 0.9)))
    assert scalars == pytest.approx(
        {
            "best_accuracy": 0.9,
            "final_accuracy": 0.8,
            "area_under_curve": 0.8,
            "epochs_to_50_percent": 1,
            "epochs_to_90_percent": 2,
            "epochs_to_99_percent": 2,
            "epoch_prediction_reached": 2,
            "epoch_reference_passed": 2,
            "epoch_reference_best_reached": 2,
        }
    )


def test_scalars_leave_out_what_does_not_exist():
    always = {"best_accuracy", "final_accuracy", "area_under_curve"} | {f"epochs_to_{p}_percent" for p in (50, 90, 99)}
    assert set(convergence_scalars(CURVE)) == always
    assert set(convergence_scalars(CURVE, predicted=0.95, reference=0.9)) == always | {"epoch_reference_best_reached"}
    assert set(convergence_scalars(CURVE, reference=AccuracyCurve())) == always
    assert convergence_scalars(AccuracyCurve(), 0.5, 0.5) == {}


def test_empty_curve_has_no_accuracy_and_a_bad_fraction_is_refused():
    for measure in (lambda c: c.best, lambda c: c.final, lambda c: c.area_under_curve()):
        with pytest.raises(ValueError, match="without validations has no"):
            measure(AccuracyCurve())
    assert AccuracyCurve().epochs_to(0.5) is None
    assert AccuracyCurve().accuracy_at(1) is None
    for fraction in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="`fraction` must lie in 0..1"):
            CURVE.epochs_to(fraction)


@pytest.mark.parametrize(
    ("epochs", "accuracy", "message"),
    [
        ((1, 2), (0.5,), "`epochs` and `accuracy` must have one entry per validation, got 2 and 1"),
        ((2, 1), (0.5, 0.5), "strictly increasing, got 1 after 2"),
        ((1, 1), (0.5, 0.5), "strictly increasing"),
        ((-1,), (0.5,), "not negative"),
        ((math.nan,), (0.5,), "finite"),
        ((1, math.inf), (0.5, 0.5), "finite"),
        ((1, 2**53), (0.5, 0.5), "finite"),
        ((1, 10**400), (0.5, 0.5), "`epochs` must hold numbers that fit a float"),
        ((1,), (71.2,), r"`accuracy` must lie in 0..1 \(divide a percentage by 100\), got 71.2"),
        ((1,), (math.nan,), "`accuracy` must lie in 0..1"),
        ((1,), (-0.1,), "`accuracy` must lie in 0..1"),
    ],
)
def test_bad_points_are_refused(epochs, accuracy, message):
    with pytest.raises(ValueError, match=message):
        AccuracyCurve(epochs, accuracy)


@pytest.mark.parametrize("values", ["12", b"12", 3, None, ("0.5",), (True,), (None,), ([0.5],)])
def test_what_is_no_number_is_refused(values):
    with pytest.raises(TypeError, match=r"`epochs` must (hold|be a sequence of) numbers"):
        AccuracyCurve(values, (0.5,))
    with pytest.raises(TypeError, match=r"`accuracy` must (hold|be a sequence of) numbers"):
        AccuracyCurve((1,), values)


def test_arrays_tensors_and_iterators_are_sequences_of_numbers():
    for kind in (np.array, torch.tensor, iter, list):
        curve = AccuracyCurve(kind([1, 2]), kind([0.25, 0.5]))
        assert (curve.epochs, curve.accuracy) == ((1.0, 2.0), (0.25, 0.5))
    assert AccuracyCurve((2**53 - 1,), (0.5,)).epochs == (2.0**53 - 1,)  # the last that a float can count


@given(curves())
def test_area_agrees_with_numpy_and_lies_between_the_extremes(curve):
    assert min(curve.accuracy) <= curve.area_under_curve() <= max(curve.accuracy)
    if len(curve) > 1:
        expected = np.trapezoid(curve.accuracy, curve.epochs) / (curve.epochs[-1] - curve.epochs[0])
        assert curve.area_under_curve() == pytest.approx(expected, abs=1e-9)
