"""Learning curves: evidence and posterior against brute-force integration, draws against what they are drawn from."""

import math

import numpy as np
import pytest
import scipy.stats

from lightning_leep.forecast.statistics import curve_shapes, learning_curve
from lightning_leep.forecast.statistics.curve_shapes import CurveShapes
from lightning_leep.forecast.statistics.learning_curve import (
    CurveDraws,
    Posterior,
    draw_learning_curves,
    fit_learning_curve,
    planned_validations,
)
from tests.forecast.statistics.test_curve_shapes import left

EPOCHS, ACCURACY = np.array([1.0, 2.0, 4.0]), np.array([0.42, 0.55, 0.6])


def fields(shapes):
    return list(zip(shapes.time_scale, shapes.exponent, shapes.share, shapes.straight, strict=True))


def integrate(shape, end, noise, mean):
    """Evidence, and mean of the final accuracy, on a fine grid of both accuracies."""
    final = np.linspace(-1.5, 2.5, 401)[:, None]
    start = np.linspace(-2, 3, 501)[None]  # half a standard deviation of the noise apart
    log = scipy.stats.norm.logpdf(final, mean, 0.3) + scipy.stats.norm.logpdf(start, mean / 4, mean / 4 + 0.01)
    for t, y in zip(EPOCHS, ACCURACY, strict=True):
        height = final + (start - final) * left(t, *shape, end)
        log = log + scipy.stats.norm.logpdf(y, height, math.hypot(noise, 0.007))
    mass = np.exp(log)
    return mass.sum(), (mass * final).sum() / mass.sum()


@pytest.mark.slow
@pytest.mark.parametrize("end", [6.0, math.inf])
def test_evidence_and_posterior(end, monkeypatch):
    monkeypatch.setattr(curve_shapes, "NUM_TIME_SCALES", 3)
    monkeypatch.setattr(curve_shapes, "EXPONENTS", ((1.0, 0.25), (math.inf, 0.75)))
    monkeypatch.setattr(curve_shapes, "SCHEDULE_SHARES", ((0.0, 0.6), (0.5, 0.4)))
    monkeypatch.setattr(learning_curve, "NOISE_LEVELS", ((0.02, 0.7), (0.05, 0.3)))
    posterior = fit_learning_curve(EPOCHS, ACCURACY, end, mean=0.6)
    evidence, final = np.array(
        [
            [
                (
                    share_of_noise
                    * (0.25 if shape[1] == 1 else 0.75)
                    * (1 if math.isinf(end) else 0.6 if shape[2] == 0 else 0.2)
                    * evidence,
                    final,
                )
                for shape in fields(posterior.shapes)
                for evidence, final in [integrate(shape, end, noise, 0.6)]
            ]
            for noise, share_of_noise in ((0.02, 0.7), (0.05, 0.3))
        ]
    ).transpose(2, 0, 1)  # [j, k] each
    np.testing.assert_allclose(posterior.weights, evidence / evidence.sum(), rtol=1e-3, atol=1e-9)
    likely = evidence > 0.001 * evidence.max()
    np.testing.assert_allclose(posterior.mean[..., 0][likely], final[likely], atol=2e-3)


def test_noise_of_counted_rows_is_their_sampling_error():
    """Laplace's rate of 40 rows that were right in 0.5233 of the cases: (40 * 0.5233 + 1) / 42."""
    p = (40 * ACCURACY.mean() + 1) / 42
    noise = fit_learning_curve(EPOCHS, ACCURACY, 6.0, mean=0.6, test_size=40).noise
    assert noise.min() == pytest.approx(0.3 * math.sqrt(p * (1 - p) / 40))
    assert noise.max() == pytest.approx(math.hypot(0.02, math.sqrt(p * (1 - p) / 40)))


@pytest.mark.parametrize("end", [20.0, math.inf])
def test_arrivals_of_earlier_transfers_become_likelier(end):
    """Each shape is weighed by a lognormal density, a factor of 1.5 wide, of the epoch at which it arrives."""
    arguments = (np.ones(1), np.array([0.3]), end)
    flat = fit_learning_curve(*arguments, mean=0.6)
    told = fit_learning_curve(*arguments, mean=0.6, arrivals=[(0.9, 4.0), (0.99, 9.0)])
    factor = np.ones(len(flat.shapes.share))
    for fraction, usual in ((0.9, 4.0), (0.99, 9.0)):
        # From a quarter of the final accuracy to this fraction of it.
        arrival = flat.shapes.epoch_of(np.full(len(factor), (1 - fraction) / 0.75))
        factor *= scipy.stats.norm.pdf(np.log(arrival / usual), 0, math.log(1.5))
    expected = flat.weights * factor
    np.testing.assert_allclose(told.weights, expected / expected.sum(), rtol=1e-6, atol=1e-15)


def known_curve(final, start, noise=0.0, end=math.inf, time_scale=2.0):
    """A posterior that knows the curve."""
    shapes = CurveShapes(np.array([time_scale]), np.array([math.inf]), np.zeros(1), np.zeros(1, dtype=bool), end)
    return Posterior(
        shapes,
        np.array([noise]),
        np.ones((1, 1)),
        np.array([[[final, start]]]),
        np.full((1, 1, 2, 2), 1e-18 * np.eye(2)),
    )


@pytest.fixture
def exact(monkeypatch):
    """Curves that are what they are."""
    for name in ("MISFIT", "RISE_SPREAD", "EARLY_ENDS"):
        monkeypatch.setattr(learning_curve, name, 0.0)


@pytest.mark.parametrize(("final", "start", "best"), [(0.8, 0.2, 0.8), (0.8, 0.2, 0.85), (0.3, 0.5, 0.32)])
def test_best_accuracy_of_a_known_curve(final, start, best, exact):
    draws = draw_learning_curves(known_curve(final, start, end=8.0), EPOCHS, best, mean=0.6, deviation=0.1)
    ahead = [final + (start - final) * left(t, 2.0, math.inf, 0, 0, 8.0) for t in (5.5, 7, 8, 5.333333333)]
    expected = max(best, *ahead) if start < final else max(best, ahead[-1])
    np.testing.assert_allclose(draws.best, expected, atol=1e-6)
    assert draws.weights.sum() == pytest.approx(1)


def test_noise_raises_the_best_of_several_validations(exact):
    """The highest of n normal values: their expected maximum is tabulated (n = 4: 1.0294; Tippett 1925)."""
    posterior = known_curve(0.6, 0.6, noise=0.02, end=12.0)
    draws = draw_learning_curves(posterior, np.arange(1.0, 9.0), 0.0, mean=0.6, deviation=math.inf)
    assert draws.best.mean() == pytest.approx(0.6 + 1.0294 * 0.02, abs=4 * 0.7 * 0.02 / math.sqrt(4096))


def test_the_rise_to_come_is_known_up_to_a_factor(monkeypatch):
    monkeypatch.setattr(learning_curve, "MISFIT", 0.0)
    posterior = known_curve(0.6, 0.2, end=8.0)
    now = 0.6 - 0.4 * left(4.0, 2.0, math.inf, 0, 0, 8.0)
    draws = draw_learning_curves(posterior, EPOCHS, 0.0, mean=0.6, deviation=math.inf)
    factors = (draws.best - now) / (0.6 - now)

    def distribution(x):  # a fifth of the runs end early anywhere
        return 0.2 * min(x, 1) + 0.8 * scipy.stats.norm.cdf(math.log(x) / 0.3)

    for x in (0.3, 0.7, 1.0, 1.3, 1.6):
        p = distribution(x)
        assert np.mean(factors < x) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 4096))


def test_draws_are_weighted_by_what_was_expected_of_the_best():
    posterior = fit_learning_curve(EPOCHS, ACCURACY, 10.0, mean=0.6)
    draws = draw_learning_curves(posterior, EPOCHS, 0.6, mean=0.6, deviation=0.03)
    expected = 0.01 + sum(
        share * scipy.stats.norm.pdf(draws.best, 0.6, scale) for share, scale in ((0.94, 0.03), (0.05, 0.12))
    )
    expected /= scipy.stats.norm.pdf(draws.best, 0.6, 0.3)
    np.testing.assert_allclose(draws.weights, expected / expected.sum(), rtol=1e-9)
    again = draw_learning_curves(posterior, EPOCHS, 0.6, mean=0.6, deviation=0.03)
    np.testing.assert_array_equal(again.best, draws.best)


@pytest.mark.parametrize("end", [12.0, math.inf])
def test_epoch_of_a_fraction(end):
    shapes = CurveShapes(np.full(2, 3.0), np.array([1.0, math.inf]), np.zeros(2), np.zeros(2, dtype=bool), end)
    draws = CurveDraws(shapes, np.full(2, 0.2), np.full(2, 0.8), np.full(2, 0.8), np.full(2, 0.5))
    for fraction in (0.3, 0.5, 0.9, 0.99):
        for time, shape in zip(draws.epoch_of(fraction), fields(shapes), strict=True):
            assert 0 < time < end
            assert 0.8 - 0.6 * left(time, *shape, end) == pytest.approx(fraction * 0.8, abs=1e-6)
    np.testing.assert_allclose(draws.epoch_of(0.25), 0, atol=1e-4)
    np.testing.assert_allclose(draws.epoch_of(0.1), 0, atol=1e-4)


def test_weighted_quantiles_by_hand():
    ones = np.ones(3)
    shapes = CurveShapes(ones, ones, ones, ones > 0, 1.0)
    draws = CurveDraws(shapes, ones, ones, ones, weights=np.array([0.1, 0.6, 0.3]))
    assert draws.quantiles(np.array([3.0, 1.0, 2.0]), (0.5, 0.6, 0.61, 0.95, 1.0)) == [1, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("epochs", "end", "expected"),
    [
        ((2.0,), 8.0, (4, 6, 8)),
        ((0.0, 1.0, 2.0), 4.0, (3, 4)),
        ((0.5, 1.0), 1.2, (1.2,)),  # the last one comes in any case
        ((0.0,), 5.0, (5,)),
        ((1.0, 2.0), math.inf, (math.inf,)),
        ((0.001, 0.002), 64.002, range(1, 65)),  # at most 64
    ],
)
def test_validations_to_come(epochs, end, expected):
    np.testing.assert_allclose(planned_validations(np.array(epochs), end), expected, rtol=0.01)
