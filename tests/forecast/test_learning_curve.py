"""Learning curves: evidence and posterior against brute-force integration of the formula in the docstring."""

import math

import numpy as np
import pytest
import scipy.optimize

from lightning_leep.forecast import learning_curve
from lightning_leep.forecast.learning_curve import CurveDraws, fit_learning_curve

EPOCHS, ACCURACY = np.array([1.0, 2.0, 4.0]), np.array([0.42, 0.55, 0.6])


def height(t, start, final, time_scale, exponent, end):
    def approach(time):
        u = time / time_scale
        if math.isinf(time):
            return 0.0
        return math.exp(-u) if math.isinf(exponent) else (1 + u) ** -exponent

    return final + (start - final) * (approach(t) - approach(end)) / (1 - approach(end))


def integrate(time_scale, exponent, noise, spread, mean, deviation, end):
    """Evidence, and mean of the final accuracy, on a fine grid of both accuracies."""
    final = np.linspace(-1, 2, 901)[:, None]
    start = np.linspace(-3, 4, 1401)[None]
    wide = spread * deviation
    log = -0.5 * ((final - mean) / wide) ** 2 - math.log(wide)
    log = log - 0.5 * ((start - mean / 4) / (mean / 4 + 0.01)) ** 2 - math.log(mean / 4 + 0.01)
    for t, y in zip(EPOCHS, ACCURACY, strict=True):
        log = log - 0.5 * ((y - height(t, start, final, time_scale, exponent, end)) / noise) ** 2 - math.log(noise)
    mass = np.exp(log)
    return mass.sum(), (mass * final).sum() / mass.sum()


@pytest.mark.parametrize("end", [6.0, math.inf])
def test_evidence_and_posterior(end, monkeypatch):
    monkeypatch.setattr(learning_curve, "NUM_TIME_SCALES", 3)
    monkeypatch.setattr(learning_curve, "NOISE_LEVELS", ((0.02, 0.7), (0.05, 0.3)))
    draws = fit_learning_curve(EPOCHS, ACCURACY, mean=0.6, deviation=0.05, end=end)
    time_scales = np.geomspace(0.1, 10 * (end if math.isfinite(end) else 9.0), 3)
    expected = [
        (prior * share * evidence, final)
        for scale in time_scales
        for exponent in (0.5, 1, 2, math.inf)
        for noise, share in ((0.02, 0.7), (0.05, 0.3))
        for spread, prior in ((1, 0.95), (4, 0.05))
        for evidence, final in [integrate(scale, exponent, noise, spread, 0.6, 0.05, end)]
    ]
    weights = np.array([weight for weight, _ in expected])
    np.testing.assert_allclose(draws.weights.sum(1), weights / weights.sum(), rtol=1e-3, atol=1e-9)
    likely = weights > 0.01 * weights.max()
    means = np.array([final for _, final in expected])
    np.testing.assert_allclose(draws.final.mean(1)[likely], means[likely], atol=2e-3)


@pytest.mark.parametrize("end", [20.0, math.inf])
def test_arrivals_of_earlier_transfers_become_likelier(end):
    """Each kind is weighed by a lognormal density, a factor of 1.5 wide, of the epoch at which it arrives."""
    arguments = (np.ones(1), np.array([0.3]), 0.6, 0.05, end)
    flat = fit_learning_curve(*arguments).weights.sum(1)
    told = fit_learning_curve(*arguments, arrivals=[(0.9, 4.0), (0.99, 9.0)])
    expected = []
    for weight, scale, exponent in zip(flat, told.time_scale, told.exponent, strict=True):
        log = math.log(weight)
        for fraction, usual in ((0.9, 4.0), (0.99, 9.0)):
            upper = end if math.isfinite(end) else 1e12
            arrival = scipy.optimize.brentq(
                lambda t, scale=scale, c=exponent, f=fraction: height(t, 0.25, 1.0, scale, c, end) - f, 0, upper
            )
            log -= 0.5 * (math.log(arrival / usual) / math.log(1.5)) ** 2
        expected.append(log)
    expected = np.exp(np.array(expected) - max(expected))
    np.testing.assert_allclose(told.weights.sum(1), expected / expected.sum(), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, math.inf])
@pytest.mark.parametrize("end", [12.0, math.inf])
def test_epoch_of_a_fraction(exponent, end):
    draws = CurveDraws(
        start=np.array([[0.2]]),
        final=np.array([[0.8]]),
        time_scale=np.array([3.0]),
        exponent=np.array([exponent]),
        noise=np.zeros(1),
        end=end,
        weights=np.ones((1, 1)),
    )
    for fraction in (0.3, 0.5, 0.9, 0.99):
        time = draws.epoch_of(fraction).item()
        assert 0 < time < end
        assert height(time, 0.2, 0.8, 3.0, exponent, end) == pytest.approx(fraction * 0.8)
    assert draws.epoch_of(0.25).item() == pytest.approx(0, abs=1e-12)
    assert draws.epoch_of(0.1).item() == pytest.approx(0, abs=1e-12)


def test_weighted_quantiles_by_hand():
    ones = np.ones(1)
    draws = CurveDraws(ones, ones, ones, ones, ones, 1.0, weights=np.array([[0.1, 0.6, 0.3]]))
    assert draws.quantiles(np.array([[3.0, 1.0, 2.0]]), (0.5, 0.6, 0.61, 0.95, 1.0)) == [1, 1, 2, 3, 3]


def test_the_last_validation_is_the_final_accuracy_with_noise():
    final, unused = np.tile([[0.3], [0.6]], (1, 4000)), np.zeros(2)
    draws = CurveDraws(final, final, unused, unused, np.array([0.01, 0.05]), 1.0, weights=np.ones_like(final))
    shown = draws.last_validation()
    np.testing.assert_allclose(shown.mean(1), [0.3, 0.6], atol=4 * 0.05 / math.sqrt(4000))
    np.testing.assert_allclose(shown.std(1), [0.01, 0.05], rtol=0.05)


def test_the_same_arguments_give_the_same_draws():
    first, second = (fit_learning_curve(EPOCHS, ACCURACY, 0.6, 0.05, 10.0) for _ in range(2))
    np.testing.assert_array_equal(first.final, second.final)
