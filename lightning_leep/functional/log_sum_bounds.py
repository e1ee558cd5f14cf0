"""Bounds on a sum of logarithms whose terms are known up to intervals and whose groups are known up to a total."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Halvings of the range of a multiplier on the logarithmic scale: 30 nats shrink to 3e-14.
NUM_HALVINGS = 50

#: Rows handled at a time, so that temporaries stay small beside the rows themselves.
ROWS_PER_CHUNK = 2**16


def bound_log_sum(
    known: Tensor,
    low: Tensor,
    high: Tensor,
    group: Tensor,
    totals: Tensor,
    smallest: float,
    rounding: float = 0.0,
    reduce: Callable[[Tensor], Tensor] = lambda value: value,
) -> tuple[Tensor, Tensor]:
    r"""Smallest and largest that :math:`\sum_i \log(a_i + t_i)` can be, each :math:`a_i` known and each :math:`t_i` in
    an interval, when the :math:`t_i` of a group add up to a known total :math:`T_g`.

    For any multipliers :math:`\mu_g` the sum equals :math:`\sum_i [\log(a_i + t_i) - \mu_g t_i] + \sum_g \mu_g T_g`,
    because the :math:`t_i` add up to :math:`T_g`. Each bracket is at most its maximum over the interval, which makes
    an upper bound, and at least its minimum, which makes a lower one. So **every** multiplier gives valid bounds;
    the search only makes them narrow:

    - The maximum is at the water level, :math:`t_i = 1/\mu - a_i` kept within its interval. With the multiplier at
      which these add up to :math:`T_g` (water-filling) the upper bound is attained.
    - The bracket is concave, so its minimum is at an end: the upper end where the chord of the logarithm is less
      steep than :math:`\mu`. With the multiplier at which these fill :math:`T_g` this is the fractional knapsack over
      the chords; it is below what can be attained by no more than one row of each group.

    Both sums grow or fall with the multiplier, which is found by bisection, for all groups at once. Before it, the
    intervals are cut to what the totals leave open when all other rows of the group are at their ends, so that the
    only row of a group is known.

    Args:
        known: ``[n]``, :math:`a_i > 0`.
        low: ``[n]``, lower ends of the intervals.
        high: ``[n]``, upper ends.
        group: ``[n]``, integers in ``0 .. C-1``.
        totals: ``[C]``, :math:`T_g`, of the rows of all processes.
        smallest: A positive number that no :math:`a_i + t_i` is below; none is above 1. It affects how narrow the
            bounds are, not whether they hold.
        rounding: Relative error of the arguments and of the sums made here. The bounds are moved outwards by
            what it can amount to: a relative error e of a term x moves its logarithm by e, ``mu x`` by
            ``e mu x`` and a sum of terms by e times the sum of their magnitudes.
        reduce: Function that sums a tensor over processes. It is called on ``[2, C]`` a fixed number of times
            (``NUM_HALVINGS + 1``) and on ``[2, 2]`` once, whatever n.

    Returns:
        Lower and upper bound of the sum over the rows of all processes, 0-d.
    """
    low, high = _cut(low, high, group, totals, rounding, reduce)
    steepness = _chord_slope(known, low, high)  # [n]
    rows = (known, low, high, steepness, group)
    chunks = list(zip(*(column.split(ROWS_PER_CHUNK) for column in rows), strict=True))
    num_groups = totals.shape[0]
    # Row 0 is the search for the lower bound, row 1 for the upper one. 1 / (a_i + t_i) is the slope of a logarithm.
    left = known.new_full((2, num_groups), -math.log(2.0))
    right = known.new_full((2, num_groups), math.log(2.0 / smallest))
    for _ in range(NUM_HALVINGS):
        middle = (left + right) / 2  # [2, C]
        filled = torch.zeros_like(middle)
        for chunk in chunks:
            parts = torch.stack(_extreme_parts(middle.exp(), *chunk))  # [2, m]
            filled.scatter_add_(1, chunk[-1].expand_as(parts), parts)
        at_ends, at_level = reduce(filled)  # [C] each
        # Totals that are met within rounding are met: a larger multiplier would only magnify what is left.
        larger = torch.stack([at_ends < totals * (1 - rounding), at_level > totals * (1 + rounding)])  # [2, C]
        left, right = torch.where(larger, middle, left), torch.where(larger, right, middle)
    multipliers = ((left + right) / 2).exp()  # [2, C]

    sums = known.new_zeros(2, 2)  # of the brackets, of their magnitudes; for the lower and the upper bound
    for chunk in chunks:
        parts = torch.stack(_extreme_parts(multipliers, *chunk))  # [2, m]
        slopes, terms = multipliers[:, chunk[-1]], chunk[0] + parts  # [2, m] each
        logs = terms.log()
        sums += torch.stack([(logs - slopes * parts).sum(dim=1), (logs.abs() + 1 + slopes * terms).sum(dim=1)])
    brackets, magnitudes = reduce(sums)  # [2] each
    offsets = (multipliers * totals).sum(dim=1)  # [2]
    lower, upper = brackets + offsets + rounding * (magnitudes + offsets) * offsets.new_tensor([-1.0, 1.0])
    return lower, upper


def _cut(
    low: Tensor, high: Tensor, group: Tensor, totals: Tensor, rounding: float, reduce: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Intervals ``[n]`` without what would need another row of the group to be outside of its own."""
    ends = torch.stack([low, high])  # [2, n]
    sums = reduce(totals.new_zeros(2, totals.shape[0]).scatter_add_(1, group.expand_as(ends), ends))  # [2, C]
    open_ = ((totals - sums) * totals.new_tensor([[1.0], [-1.0]])).clamp(min=0.0) + rounding * (totals + sums)  # [2, C]
    above_low, below_high = open_[:, group]  # [n] each
    cut_high = high.minimum(low + above_low)
    return low.maximum(high - below_high).minimum(cut_high), cut_high


def _chord_slope(known: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Mean slope of the logarithm between ``known + low`` and ``known + high``, ``[n]``."""
    width = high - low
    relative = width / (known + low)
    return torch.where(width > 0, relative.log1p() / width, 1 / (known + low))


def _extreme_parts(
    multipliers: Tensor, known: Tensor, low: Tensor, high: Tensor, steepness: Tensor, group: Tensor
) -> tuple[Tensor, Tensor]:
    """Where in their intervals the brackets are smallest and largest, ``[m]`` each, for ``multipliers [2, C]``."""
    for_lower, for_upper = multipliers[:, group]  # [m] each
    return torch.where(steepness < for_lower, high, low), (1 / for_upper - known).clamp(low, high)
