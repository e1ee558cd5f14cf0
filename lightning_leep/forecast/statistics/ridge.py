"""Weighted ridge regression for few records, with the penalty chosen by closed-form leave-one-out."""

from dataclasses import dataclass

import numpy as np

from lightning_leep.forecast.statistics.conformal import Array

# Prior standard deviations of a slope, from "no correction" to "one logit per nat".
PRIOR_SCALES = np.array([0.0, 0.03, 0.1, 0.3, 1.0])
# A constant offset between probe and head is likelier than a dependence on a single score.
INTERCEPT_SCALE = 3.0


@dataclass(frozen=True)
class RidgeFit:
    """A fitted ridge regression; calling it with ``x [k, p]`` gives answers ``[k]``."""

    centre: Array  #: weighted mean of the records, ``[p]``; it replaces a missing feature (NaN)
    coefficients: Array  #: intercept and slopes, ``[p + 1]``
    prior_scale: float  #: the chosen prior standard deviation of a slope

    def __call__(self, x: Array) -> Array:
        """Return answers ``[k]`` for features ``[k, p]``."""
        return _design(x, self.centre) @ self.coefficients


def fit_ridge(x: Array, y: Array, scale: Array) -> RidgeFit:
    r"""Least squares with a Gaussian prior around zero; without records it answers 0.

    With weights :math:`w_i = 1 / \text{scale}_i^2`, centred features :math:`\tilde x` and prior standard deviation s
    of a slope (3 s for the intercept), it minimises

    .. math:: \sum_i w_i (y_i - b_0 - \tilde x_i^\top b)^2 + b_0^2 / (3 s)^2 + \|b\|^2 / s^2 .

    s is the value of ``PRIOR_SCALES`` with the smallest leave-one-out error :math:`\sum_i w_i (e_i / (1 - h_i))^2` (h
    is the diagonal of the hat matrix); the smaller s wins a tie. Features ``x [n, p]`` must be in nats or logits, NaN
    where missing. They are not rescaled, so a feature that hardly varies among the records cannot get a large
    coefficient. ``scale [n]`` is the standard deviation of the noise of each answer ``y [n]``.
    """
    precision = 1 / scale  # [n]
    weights = np.where(np.isnan(x), 0, precision[:, None] ** 2)  # [n, p]
    total = weights.sum(0)
    centre = np.where(total > 0, (weights * np.nan_to_num(x)).sum(0) / np.where(total > 0, total, 1), np.nan)
    prior = np.array([INTERCEPT_SCALE] + [1.0] * x.shape[1])
    design, answers = _design(x, centre) * precision[:, None], y * precision
    u, sizes, vt = np.linalg.svd(design * prior, full_matrices=False)  # [n, k], [k], [k, p + 1]
    squares = sizes**2
    # Shrinkage s^2 q / (s^2 q + 1) of each principal direction, for every s at once: [k, number of scales]
    shrinkage = (PRIOR_SCALES**2 * squares[:, None]) / (PRIOR_SCALES**2 * squares[:, None] + 1)
    projection = u.T @ answers  # [k]
    errors = answers[:, None] - u @ (shrinkage * projection[:, None])  # [n, number of scales]
    leverage = (u**2) @ shrinkage
    losses = np.square(errors / np.maximum(1 - leverage, 1e-9)).sum(0)
    best = int(np.argmin(losses))  # the first of equals, with the strongest penalty
    inverse = np.divide(shrinkage[:, best], sizes, out=np.zeros_like(sizes), where=sizes > 0)
    return RidgeFit(centre, prior * (vt.T @ (inverse * projection)), float(PRIOR_SCALES[best]))


def _design(x: Array, centre: Array) -> Array:
    return np.column_stack([np.ones(len(x)), np.nan_to_num(x - centre)])
