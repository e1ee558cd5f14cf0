"""Bayesian learning curves from a few validations: closed-form normal posteriors, and draws from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_leep.forecast.statistics.conformal import Array
from lightning_leep.forecast.statistics.curve_shapes import CurveShapes, curve_shapes

# Standard deviation of a true curve around the family, common to all later validations ...
MISFIT = 0.007
# ... and of the logarithm of its remaining rise, because shapes are known only roughly.
RISE_SPREAD = 0.3
# Probability that only a part of the remaining rise comes, uniform over parts: networks overfit.
EARLY_ENDS = 0.2
# Standard deviations of single validations around their curve, and prior probabilities, if the rows are unknown ...
NOISE_LEVELS = ((0.0, 0.2), (0.005, 0.2), (0.01, 0.2), (0.02, 0.2), (0.04, 0.12), (0.08, 0.08))
# ... and from training alone, if the number of rows is known, ...
TRAINING_NOISE_LEVELS = ((0.0, 0.3), (0.005, 0.3), (0.01, 0.25), (0.02, 0.15))
# ... together with this part of the sampling error: the rest is common, as all validations have the same rows.
SAMPLING_PARTS = ((0.3, 0.4), (1.0, 0.6))
# A wide prior of the final accuracy; the forecast of the best accuracy enters as weights of the draws.
FINAL_SPREAD = 0.3
# The forecast may be overconfident: 4 times as wide with probability 0.05, uninformative with 0.01.
PRIOR_SPREADS, NOTHING = ((1.0, 0.94), (4.0, 0.05)), 0.01
# Accuracy before training as a fraction of the final one: between chance and a useful head.
START, START_SPREAD = 0.25, 0.25
# The epochs of earlier transfers hold up to a factor of 1.5 (one standard deviation).
ARRIVAL_SPREAD = math.log(1.5)
NUM_DRAWS, MOST_PLANNED = 4096, 64


@dataclass(frozen=True)
class Posterior:
    """Normal posteriors of the accuracies at both ends, for each noise (j) and shape (k), and their weights."""

    shapes: CurveShapes  #: the k shapes
    noise: Array  #: standard deviation of single validations, ``[j]``
    weights: Array  #: probability of each noise and shape, ``[j, k]``
    mean: Array  #: of the final accuracy and of that before training, ``[j, k, 2]``
    covariance: Array  #: of the two, ``[j, k, 2, 2]``


@dataclass(frozen=True)
class CurveDraws:
    """Weighted draws of learning curves."""

    shapes: CurveShapes  #: the s shapes
    start: Array  #: accuracy before training, ``[s]``
    final: Array  #: accuracy at the end, ``[s]``
    best: Array  #: highest accuracy of all validations, past and future, ``[s]``
    weights: Array  #: probability of each draw, ``[s]``, with sum 1

    def epoch_of(self, fraction: float) -> Array:
        """Return the epochs ``[s]`` until each curve is at a fraction of its final accuracy; 0 if it starts above."""
        way = self.final - self.start
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.where(way > 0, (1 - fraction) * self.final / way, 1)
        return self.shapes.epoch_of(np.clip(left, 0, 1))

    def quantiles(self, values: Array, levels: tuple[float, ...]) -> list[float]:
        """Return weighted quantiles of ``values [s]``."""
        order = np.argsort(values, kind="stable")
        cumulated = np.cumsum(self.weights[order])
        positions = np.searchsorted(cumulated, np.array(levels) * cumulated[-1])
        return values[order][np.minimum(positions, len(values) - 1)].tolist()


def fit_learning_curve(
    epochs: Array,
    accuracy: Array,
    end: float,
    *,
    mean: float,
    arrivals: Sequence[tuple[float, float]] = (),
    test_size: int | None = None,
) -> Posterior:
    r"""Fit learning curves to validations: ``accuracy [t]`` at ``epochs [t]``, at least one.

    A curve runs from :math:`y_0` before training to :math:`y_T` at the end, :math:`y(t) = y_T + (y_0 - y_T) l(t)`, with
    the shapes l of ``CurveShapes`` and normal noise of the validations. The prior of :math:`y_T` is normal with
    standard deviation 0.3; that of :math:`y_0` has a quarter of its mean. For a given shape and noise the model is
    linear in :math:`(y_T, y_0)`, so the posterior is normal and the evidence is exact. It weights shapes and noises.

    ``end`` is T, infinity if training never ends; ``mean`` the prior mean of :math:`y_T`; ``arrivals`` are fractions of
    it, each with the epochs that earlier transfers needed; ``test_size`` is the number of rows in each validation.
    """
    shapes, prior = curve_shapes(epochs, end)
    log_prior = np.log(prior)  # [k]
    for fraction, usual in arrivals:
        arrival = shapes.epoch_of(np.full(len(prior), (1 - fraction) / (1 - START)))
        log_prior = log_prior - 0.5 * (np.log(arrival / max(usual, 1e-9)) / ARRIVAL_SPREAD) ** 2
    noise, share = _noises(accuracy, test_size)  # [j] each
    scale = np.hypot(noise, MISFIT)[:, None]  # [j, 1]

    left = shapes.left(epochs)  # [k, t]
    design = np.stack([1 - left, left], axis=2)  # [k, t, 2]
    gram, moment = np.einsum("kti,ktj->kij", design, design), np.einsum("kti,t->ki", design, accuracy)
    prior_mean = np.array([mean, START * mean])
    prior_deviation = np.array([FINAL_SPREAD, START_SPREAD * mean + 0.01])
    prior_precision = np.diag(prior_deviation**-2)
    precision = prior_precision + gram / scale[..., None, None] ** 2  # [j, k, 2, 2]
    pull = prior_precision @ prior_mean + moment / scale[..., None] ** 2  # [j, k, 2]
    a, b, d = precision[..., 0, 0], precision[..., 0, 1], precision[..., 1, 1]  # [j, k] each
    determinant = a * d - b * b
    # By hand: for so many matrices of two rows LAPACK takes most of the time of a forecast.
    covariance = np.stack([d, -b, -b, a], axis=2).reshape(precision.shape) / determinant[..., None, None]
    centre = np.einsum("jkab,jkb->jka", covariance, pull)
    squares = accuracy @ accuracy - 2 * np.einsum("ka,jka->jk", moment, centre)
    squares = squares + np.einsum("jka,kab,jkb->jk", centre, gram, centre)  # of the residuals
    misfit = squares / scale**2 + np.square((centre - prior_mean) / prior_deviation).sum(2)
    log_weight = log_prior - 0.5 * misfit - 0.5 * np.log(determinant)
    log_weight += np.log(share)[:, None] - len(epochs) * np.log(scale)  # [j, k]
    weights = np.exp(log_weight - log_weight.max())
    return Posterior(shapes, noise, weights / weights.sum(), centre, covariance)


def draw_learning_curves(posterior: Posterior, epochs: Array, best: float, mean: float, deviation: float) -> CurveDraws:
    """Draw curves with their future validations, and so the best accuracy of the whole run.

    Future validations follow at the pace of those so far (``epochs``, the best accuracy ``best``); without an end there
    is one, at the plateau. The draws are weighted by the density that the forecast from before training gives their
    best accuracy: ``mean``, as in the fit, and ``deviation``, infinity without a forecast. The same arguments give the
    same draws.
    """
    # A fixed generator: a forecast is a function of its arguments.
    generator = np.random.default_rng(0)
    cumulated = np.cumsum(posterior.weights)
    quantiles = (np.arange(NUM_DRAWS) + 0.5) / NUM_DRAWS * cumulated[-1]
    noise_index, shape_index = np.unravel_index(np.searchsorted(cumulated, quantiles), posterior.weights.shape)
    shapes, noise = posterior.shapes[shape_index], posterior.noise[noise_index]
    factor = np.linalg.cholesky(posterior.covariance[noise_index, shape_index])  # [s, 2, 2]
    normal = generator.standard_normal((NUM_DRAWS, 2))
    ends = posterior.mean[noise_index, shape_index] + np.einsum("sab,sb->sa", factor, normal)
    final, start = np.clip(ends, 0, 1).T

    ahead = planned_validations(epochs, shapes.end)  # [u]
    left = shapes.left(np.concatenate([epochs[-1:], ahead]))  # [s, 1 + u]
    heights = final[:, None] + (start - final)[:, None] * left
    now, rise = heights[:, :1], heights[:, 1:] - heights[:, :1]
    part = np.exp(RISE_SPREAD * generator.standard_normal((NUM_DRAWS, 1)))
    ends_early = generator.random((NUM_DRAWS, 1)) < EARLY_ENDS
    rise = rise * np.where(ends_early, generator.random((NUM_DRAWS, 1)), part)
    shown = now + rise + MISFIT * generator.standard_normal((NUM_DRAWS, 1))
    shown = shown + noise[:, None] * generator.standard_normal(shown.shape)
    reached = np.clip(shown.max(1), best, 1)  # at least the best so far

    expected = NOTHING + sum(part * _normal_density(reached, mean, k * deviation) for k, part in PRIOR_SPREADS)
    weights = expected / _normal_density(reached, mean, FINAL_SPREAD)
    return CurveDraws(shapes, start, final, reached, weights / weights.sum())


def planned_validations(epochs: Array, end: float) -> Array:
    """Return the epochs of future validations, at the mean distance of those so far, the last one at the end."""
    if math.isinf(end):
        return np.array([math.inf])
    pace = (epochs[-1] - epochs[0]) / (len(epochs) - 1) if len(epochs) > 1 else epochs[-1]
    number = (end - epochs[-1]) / pace if pace > 0 else 1
    number = int(min(max(1, round(number)), MOST_PLANNED))
    return np.linspace(epochs[-1], end, number + 1)[1:]


def _noises(accuracy: Array, test_size: int | None) -> tuple[Array, Array]:
    """Return standard deviations of single validations and their prior probabilities, ``[j]`` each."""
    if test_size is None:
        levels, shares = np.array(NOISE_LEVELS).T
        return levels, shares
    p = (test_size * accuracy.mean() + 1) / (test_size + 2)  # Laplace: never exactly 0 or 1
    sampling = math.sqrt(p * (1 - p) / test_size)
    pairs = [
        (math.hypot(level, part * sampling), weight * share)
        for level, weight in TRAINING_NOISE_LEVELS
        for part, share in SAMPLING_PARTS
    ]
    levels, shares = np.array(pairs).T
    return levels, shares


def _normal_density(values: Array, mean: float, deviation: float) -> Array:
    return np.exp(-0.5 * ((values - mean) / deviation) ** 2) / (math.sqrt(2 * math.pi) * deviation)
