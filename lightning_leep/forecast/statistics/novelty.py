"""Whether a new point lies outside what the records have seen."""

import math

import numpy as np

from lightning_leep.forecast.statistics.conformal import Array

# Differences below this size are none, in nats or logits: a factor of 1.65 in classes or rows.
SLACK = 0.5
# A single record nearby is no evidence: the second nearest decides.
NEIGHBOURS = 2
# Share of the records whose own distances bound the usual, and how much further out is unusual. The rest may be odd.
USUAL = 0.9
MARGIN = 1.25


def distances(x: Array, point: Array) -> Array:
    """Euclidean distance of a point to each record.

    A feature that is missing (NaN) on either side is passed over, and the others count for it: the sum of squares is
    multiplied by p / (number of features compared).

    Args:
        x: Records, ``[n, p]``, in nats or logits.
        point: The point, ``[p]``.

    Returns:
        Distances, ``[n]``.
    """
    delta = x - point
    compared = (~np.isnan(delta)).sum(1)  # [n]
    return np.sqrt(np.nansum(delta**2, axis=1) * x.shape[1] / np.maximum(compared, 1))


def usual_distance(x: Array) -> float:
    r"""Distance from its second nearest record that is still usual, judged by the records themselves.

    It is ``MARGIN`` times the :math:`\lceil 0.9 (n + 1) \rceil`-th smallest of the distances that each record has from
    its second nearest among the others, and ``SLACK`` at least. The largest of them never decides: records far from all
    others, one in any history and a tenth of a long one, do not make everything between them and the rest look usual.

    Args:
        x: Records, ``[n, p]``, at least one.
    """
    n = len(x)
    if n == 1:
        return SLACK
    own = sorted(_neighbour_distance(np.delete(x, i, axis=0), x[i]) for i in range(n))
    rank = min(n - 1, math.ceil(round(USUAL * (n + 1), 9)))
    return max(SLACK, MARGIN * own[rank - 1])


def pull_inside(x: Array, point: Array) -> tuple[Array, bool]:
    r"""Move a point that has hardly any record near it towards the nearest ones.

    A point drawn like the n records is moved with probability :math:`1 - \lceil 0.9 (n + 1) \rceil / (n + 1)` or less
    (:math:`2 / (n + 1)` with less than 19 records), were it not for the margin: in fact about half as often.

    Args:
        x: Records, ``[n, p]``, at least one.
        point: The new point, ``[p]``.

    Returns:
        The point, its difference to the mean of its two nearest records multiplied by (usual distance) / (own
        distance) if that is less than 1, and whether it is.
    """
    usual, own = usual_distance(x), _neighbour_distance(x, point)
    if own <= usual:
        return point, False
    nearest = x[np.argsort(distances(x, point), kind="stable")[:NEIGHBOURS]]  # [2, p]
    known = ~np.isnan(nearest)
    mean = np.where(known, nearest, 0).sum(0) / np.maximum(known.sum(0), 1)
    mean = np.where(known.any(0), mean, np.nan)  # what no neighbour has cannot be extrapolated
    return mean + (point - mean) * usual / own, True


def _neighbour_distance(x: Array, point: Array) -> float:
    return float(np.sort(distances(x, point))[min(NEIGHBOURS, len(x)) - 1])
