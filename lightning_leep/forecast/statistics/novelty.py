"""Whether a new point lies outside the range of the records."""

import math

import numpy as np

from lightning_leep.forecast.statistics.conformal import Array

# Smaller distances, in nats or logits, never count: this is a factor of 1.65 in classes or rows.
SLACK = 0.5
# A single record nearby is not evidence: the second nearest decides.
NEIGHBOURS = 2
# Share of the records whose distances define the usual, and how much further is unusual. The rest may be outliers.
USUAL = 0.9
MARGIN = 1.25


def distances(x: Array, point: Array) -> Array:
    """Return the Euclidean distance of ``point [p]`` to each record ``x [n, p]``, in nats or logits: ``[n]``.

    A feature that is missing (NaN) on either side is skipped, and the sum of squares is multiplied by p / (number of
    compared features).
    """
    delta = x - point
    compared = (~np.isnan(delta)).sum(1)  # [n]
    return np.sqrt(np.nansum(delta**2, axis=1) * x.shape[1] / np.maximum(compared, 1))


def usual_distance(x: Array) -> float:
    r"""Return the largest usual distance of a point to its second nearest record of ``x [n, p]``, n at least 1.

    It is ``MARGIN`` times the :math:`\lceil 0.9 (n + 1) \rceil`-th smallest of the distances of each record to its
    second nearest other record, but at least ``SLACK``. The largest, maybe that of an outlier, never decides.
    """
    n = len(x)
    if n == 1:
        return SLACK
    own = sorted(_neighbour_distance(np.delete(x, i, axis=0), x[i]) for i in range(n))
    rank = min(n - 1, math.ceil(round(USUAL * (n + 1), 9)))
    return max(SLACK, MARGIN * own[rank - 1])


def pull_inside(x: Array, point: Array) -> tuple[Array, bool]:
    r"""Move ``point [p]`` towards the nearest records ``x [n, p]`` if none are near it; also return whether it moved.

    If its distance is larger than usual, its difference to the mean of the two nearest records is multiplied by (usual
    distance) / (its distance). A point drawn like the n records is moved with probability at most :math:`1 - \lceil 0.9
    (n + 1) \rceil / (n + 1)` (:math:`2 / (n + 1)` with less than 19 records); with the margin, about half as often.
    """
    usual, own = usual_distance(x), _neighbour_distance(x, point)
    if own <= usual:
        return point, False
    nearest = x[np.argsort(distances(x, point), kind="stable")[:NEIGHBOURS]]  # [2, p]
    known = ~np.isnan(nearest)
    mean = np.where(known, nearest, 0).sum(0) / np.maximum(known.sum(0), 1)
    mean = np.where(known.any(0), mean, np.nan)  # without any neighbour's value there is nothing to extrapolate from
    return mean + (point - mean) * usual / own, True


def _neighbour_distance(x: Array, point: Array) -> float:
    return float(np.sort(distances(x, point))[min(NEIGHBOURS, len(x)) - 1])
