"""Whether a new point lies outside what the records have seen."""

import math

import numpy as np

from lightning_leep.forecast.conformal import Array

# Differences below this size are none, in nats or logits: a factor of 1.65 in classes or rows.
SLACK = 0.5


def distance(x: Array, point: Array) -> float:
    r"""Mahalanobis distance of a point from records, :math:`\sqrt{\delta^\top (S + 0.5^2 I)^{-1} \delta}`.

    S is the covariance of the records; the slack keeps a feature that never varied among them from being infinitely
    strict. A missing feature (NaN) stands at the mean.

    Args:
        x: Records, ``[n, p]``.
        point: The point, ``[p]``.
    """
    present = ~np.isnan(x)
    mean = np.where(present, x, 0).sum(0) / np.maximum(present.sum(0), 1)
    mean = np.where(present.any(0), mean, np.nan)  # what no record has can make no point unusual
    centred = np.nan_to_num(x - mean)
    covariance = centred.T @ centred / len(x) + SLACK**2 * np.eye(x.shape[1])
    delta = np.nan_to_num(point - mean)
    return math.sqrt(delta @ np.linalg.solve(covariance, delta))


def pull_inside(x: Array, point: Array) -> tuple[Array, bool]:
    """Move a point that is further from the records than each of them is from the others towards their mean.

    A point drawn like the n records is further than all of them with probability 1 / (n + 1) at most (but for ties).

    Args:
        x: Records, ``[n, p]``, at least two.
        point: The new point, ``[p]``.

    Returns:
        The point, at most at the distance of the furthest record, and whether it was moved.
    """
    # At least 1: among records that are all alike, that is a point one slack away.
    furthest = max(1.0, *(distance(np.delete(x, i, axis=0), x[i]) for i in range(len(x))))
    own = distance(x, point)
    if own <= furthest:
        return point, False
    mean = np.array([np.mean(column[~np.isnan(column)]) if not np.isnan(column).all() else np.nan for column in x.T])
    return mean + (point - mean) * furthest / own, True
