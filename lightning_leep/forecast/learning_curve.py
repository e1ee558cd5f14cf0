"""Parametric learning curves, fitted to a few validations and a prior: a mixture of closed-form normal posteriors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_leep.forecast.conformal import Array

# Exponents c of the approach (1 + t / tau)^-c; infinity is the exponential one.
EXPONENTS = (0.5, 1.0, 2.0, math.inf)
# Standard deviations of one validation around the smooth curve, and how likely they are beforehand.
NOISE_LEVELS = ((0.005, 0.4), (0.01, 0.3), (0.02, 0.2), (0.04, 0.1))
# The prior of the final accuracy may be off by more than it says: with probability 0.05 it is 4 times as wide.
PRIOR_SPREADS = ((1.0, 0.95), (4.0, 0.05))
# Accuracy before training as a fraction of the final one: between chance and a head that is already of use.
START, START_SPREAD = 0.25, 0.25
# Epochs that earlier transfers took are believed up to a factor of 1.5 either way (one standard deviation).
ARRIVAL_SPREAD = math.log(1.5)
NUM_TIME_SCALES, NUM_DRAWS = 32, 16


@dataclass(frozen=True)
class CurveDraws:
    """Weighted draws of learning curves: k kinds (time scale, exponent, noise, width of the prior), s draws each.

    Attributes:
        start: Accuracy before training, ``[k, s]``.
        final: Accuracy at the end, ``[k, s]``.
        time_scale: In epochs, ``[k]``.
        exponent: c, ``[k]``.
        noise: Standard deviation of a validation around the curve, ``[k]``.
        end: Epochs at the end; infinity for endless training.
        weights: Weight of each draw, ``[k, s]``, with sum 1.
    """

    start: Array
    final: Array
    time_scale: Array
    exponent: Array
    noise: Array
    end: float
    weights: Array

    def epoch_of(self, fraction: float) -> Array:
        """Epochs at which each curve is at a fraction of its final accuracy, ``[k, s]``; 0 where it starts beyond."""
        way = self.final - self.start
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.where(way > 0, (1 - fraction) * self.final / way, 1)  # of the way from start to final
        in_the_end = _left(np.array([self.end]), self.time_scale, self.exponent)  # [k, 1]
        left = np.clip(left, 0, 1) * (1 - in_the_end) + in_the_end  # of the way to the plateau
        return self.time_scale[:, None] * _units(np.clip(left, 1e-300, 1), self.exponent[:, None])

    def last_validation(self) -> Array:
        """Accuracy that the validation at the end will show, ``[k, s]``: by its noise it may leave 0..1."""
        noise = np.random.default_rng(1).standard_normal(self.final.shape)
        return self.final + self.noise[:, None] * noise

    def quantiles(self, values: Array, levels: tuple[float, ...]) -> list[float]:
        """Weighted quantiles of ``values [k, s]``."""
        flat, mass = values.ravel(), self.weights.ravel()
        order = np.argsort(flat, kind="stable")
        cumulated = np.cumsum(mass[order])
        positions = np.searchsorted(cumulated, np.array(levels) * cumulated[-1])
        return flat[order][np.minimum(positions, len(flat) - 1)].tolist()


def fit_learning_curve(
    epochs: Array,
    accuracy: Array,
    mean: float,
    deviation: float,
    end: float,
    arrivals: Sequence[tuple[float, float]] = (),
) -> CurveDraws:
    r"""Draw learning curves that agree with validations and prior.

    A curve goes from :math:`y_0` before training to :math:`y_T` at the end,

    .. math:: y(t) = y_T + (y_0 - y_T) \frac{\varphi(t / \tau) - \varphi(T / \tau)}{1 - \varphi(T / \tau)}, \qquad
        \varphi(u) = (1 + u)^{-c},\ c = \tfrac12, 1, 2, \text{ or } e^{-u},

    and validations lie around it with normal noise. Beforehand :math:`y_T` is normal as given, :math:`y_0` is about a
    quarter of its mean, and each :math:`\tau` of a logarithmic grid is as likely as the next. For one kind of curve the
    model is linear in :math:`(y_T, y_0)`: the posterior is normal and the evidence is known exactly. The kinds are
    weighted by it.

    Args:
        epochs: Epochs of the validations, ``[t]``, at least one.
        accuracy: Their accuracies, ``[t]``.
        mean: Prior mean of the final accuracy.
        deviation: Its prior standard deviation, positive.
        end: Epochs T at the end of training, at least the last validation's; infinity if it never ends.
        arrivals: Fractions of the final accuracy, each with the epochs that earlier transfers took to it; curves that
            start and arrive like those become likelier.

    Returns:
        The draws; the same ones for the same arguments.
    """
    time_scale, exponent, noise, spread, log_weight = _kinds(epochs, end).T  # [k] each
    in_the_end = _left(np.array([end]), time_scale, exponent)[:, 0]
    for fraction, usual in arrivals:
        left = (1 - fraction) / (1 - START) * (1 - in_the_end) + in_the_end
        ratio = np.log(time_scale * _units(left, exponent) / max(usual, 1e-9))
        log_weight = log_weight - 0.5 * (ratio / ARRIVAL_SPREAD) ** 2

    left = _left_of_way(epochs, end, time_scale, exponent)  # [k, t]
    design = np.stack([1 - left, left], axis=2) / noise[:, None, None]  # [k, t, 2]
    answers = accuracy / noise[:, None]  # [k, t]
    prior_mean = np.array([mean, START * mean])
    prior_deviation = np.stack([spread * deviation, np.full_like(spread, START_SPREAD * mean + 0.01)], axis=1)  # [k, 2]
    prior_precision = prior_deviation[:, :, None] ** -2 * np.eye(2)  # [k, 2, 2]
    precision = prior_precision + np.einsum("kti,ktj->kij", design, design)
    moment = prior_precision @ prior_mean + np.einsum("kti,kt->ki", design, answers)
    centre = np.linalg.solve(precision, moment[..., None])[..., 0]  # [k, 2]
    misfit = np.square(answers - np.einsum("kti,ki->kt", design, centre)).sum(1)
    misfit += np.square((centre - prior_mean) / prior_deviation).sum(1)
    log_weight = log_weight - 0.5 * misfit - 0.5 * np.linalg.slogdet(precision)[1]
    log_weight = log_weight - len(epochs) * np.log(noise) - np.log(prior_deviation).sum(1)

    # A fixed generator: a forecast is a function of its arguments. Antithetic pairs keep the mean exact.
    normal = np.random.default_rng(0).standard_normal((len(noise), NUM_DRAWS // 2, 2))
    normal = np.concatenate([normal, -normal], axis=1)  # [k, s, 2]
    factor = np.linalg.cholesky(np.linalg.inv(precision))  # [k, 2, 2]
    drawn = np.clip(centre[:, None] + np.einsum("kij,ksj->ksi", factor, normal), 0, 1)  # [k, s, 2]
    weights = np.repeat(np.exp(log_weight - log_weight.max())[:, None], NUM_DRAWS, axis=1)
    return CurveDraws(drawn[..., 1], drawn[..., 0], time_scale, exponent, noise, end, weights / weights.sum())


def _kinds(epochs: Array, end: float) -> Array:
    """Time scale, exponent, noise, width of the prior and log weight of each kind, ``[k, 5]``."""
    horizon = end if math.isfinite(end) else 2 * epochs[-1] + 1
    first = epochs[epochs > 0][0] if (epochs > 0).any() else horizon
    return np.array(
        [
            (time_scale, exponent, noise, spread, math.log(share * weight))
            for time_scale in np.geomspace(0.1 * first, 10 * horizon, NUM_TIME_SCALES)
            for exponent in EXPONENTS
            for noise, share in NOISE_LEVELS
            for spread, weight in PRIOR_SPREADS
        ]
    )


def _left_of_way(epochs: Array, end: float, time_scale: Array, exponent: Array) -> Array:
    """What is left of the way from the start to the accuracy at the end after ``epochs [t]``, ``[k, t]``."""
    in_the_end = _left(np.array([end]), time_scale, exponent)  # [k, 1]
    return (_left(epochs, time_scale, exponent) - in_the_end) / (1 - in_the_end)


def _left(epochs: Array, time_scale: Array, exponent: Array) -> Array:
    """What is left of the way to the plateau after ``epochs [t]``, ``[k, t]``: 1 at the start, 0 in the end."""
    units, c = epochs / time_scale[:, None], exponent[:, None]
    return np.where(np.isinf(c), np.exp(-units), (1 + units) ** -np.where(np.isinf(c), 1, c))


def _units(left: Array, exponent: Array) -> Array:
    """Inverse of the approach: time in units of the time scale at which ``left`` in 0..1 is left."""
    power = left ** (-1 / exponent)
    return np.where(np.isinf(exponent), -np.log(left), power - 1)
