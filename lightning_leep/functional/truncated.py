r"""LEEP from the k largest source probabilities of each row: what is kept, and what the rest can amount to.

The likelihood of a row is :math:`q_i = \sum_z P(y_i|z) \theta_i(z) = k_i + t_i`, a kept and a truncated part. The
joint sees every probability, so P(y|z) and the kept part are exact. Of the truncated part are known its mass
:math:`r_i`, the source classes it lies on (not the kept ones, and only ones on which some row of the class was
truncated), that none of them holds more than the smallest kept probability, and the sum over a class's rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_leep.functional.chunks import CHUNK_BYTES_ACCELERATOR, CHUNK_BYTES_CPU, accumulation_dtype, row_chunks
from lightning_leep.functional.joint import conditional_probability


class KeptRows(NamedTuple):
    """The k largest probabilities of each row, and the mass of the others."""

    #: ``[n, k]`` in the dtype of the rows, falling.
    probs: Tensor
    #: ``[n, k]`` source classes they belong to; int16 for up to 32768 source classes, else int32.
    columns: Tensor
    #: ``[n]`` in the accumulation dtype.
    residual: Tensor


class LikelihoodParts(NamedTuple):
    """What is known of each row's likelihood, all ``[n]``."""

    #: Part of the kept probabilities.
    kept: Tensor
    #: Least that the truncated part can be.
    low: Tensor
    #: Most that it can be.
    high: Tensor
    #: Its estimate, in between.
    estimate: Tensor


class _Order(NamedTuple):
    """P(y|z) of each target class in order, source classes without truncated mass last, as 0; both ``[C, Z + 1]``."""

    #: P(y|z) by place.
    value: Tensor
    #: Sum of P(y|z) over the places before.
    running: Tensor


def truncate_rows(probs: Tensor, target: Tensor, k: int, num_target_classes: int) -> tuple[KeptRows, Tensor]:
    r"""Keep the k largest probabilities of each row.

    Args:
        probs: ``[n, Z]`` source distributions.
        target: ``[n]`` integer labels in ``0 .. C-1``.
        k: How many to keep; all if there are no more than k.
        num_target_classes: C.

    Returns:
        What is kept, and the truncated joint ``[C, Z]`` in the accumulation dtype:
        :math:`\sum_{i: y_i = y} \theta_i(z)` over the rows that do not keep z, exactly 0 where all keep it.
    """
    num_source_classes = probs.shape[1]
    values, columns = probs.topk(min(k, num_source_classes), dim=1)  # [n, k] each
    dtype = accumulation_dtype(probs.device)
    truncated_joint = torch.zeros((num_target_classes, num_source_classes), dtype=dtype, device=probs.device)
    residual = torch.zeros(probs.shape[0], dtype=dtype, device=probs.device)
    start = 0
    for chunk, labels in row_chunks(probs, target):
        rows = slice(start, start := start + chunk.shape[0])
        # Summed over what is left, not as 1 minus what is kept, which would be rounding for a confident row.
        rest = chunk.scatter(1, columns[rows], 0.0)  # [m, Z]
        residual[rows] = rest.sum(dim=1)
        truncated_joint.index_add_(0, labels, rest)
    narrow = torch.int16 if num_source_classes <= 2**15 else torch.int32
    return KeptRows(values, columns.to(narrow), residual), truncated_joint


def relative_rounding(num_rows: int, joint: Tensor) -> float:
    """Relative error, at most, of every quantity here: each is a chain of sums of up to n, Z or C positive terms.

    A sum of m positive terms is off by at most m/2 machine epsilons, whatever the order. The chain joint -> P(y|z) ->
    parts and totals -> sum over rows makes fewer than four sums over n, two over Z and two over C. Twice that is
    allowed, so that LEEP from all probabilities, itself such a chain, is contained as it is computed.
    """
    num_target_classes, num_source_classes = joint.shape
    return 4 * (num_rows + num_source_classes + num_target_classes + 8) * torch.finfo(joint.dtype).eps


def truncated_totals(joint: Tensor, truncated_joint: Tensor) -> Tensor:
    r"""Sum of the truncated parts of each class, :math:`T_y = \sum_z P(y|z) \cdot` truncated joint; ``[C]``."""
    return (conditional_probability(joint) * truncated_joint).sum(dim=1)


class TruncatedLikelihood:
    r"""Bounds and estimate of the truncated part of the likelihood of rows.

    The truncated part is largest when its mass fills the source classes of the largest P(y|z), each up to the
    smallest kept probability of the row, and smallest the other way round; without that cap it would be the
    residual mass times the largest and times the smallest P(y|z). The estimate is the residual mass times the class's
    mean truncated P, :math:`T_y / R_y` with :math:`R_y` the truncated mass of the class, kept within the bounds.

    Args:
        joint: ``[C, Z]`` of all rows.
        truncated_joint: ``[C, Z]`` of all rows.
        num_rows: Number of all rows, n; the bounds are moved outwards by the rounding that so many rows can make.
    """

    def __init__(self, joint: Tensor, truncated_joint: Tensor, num_rows: int) -> None:
        self.conditional = conditional_probability(joint)  # [C, Z]
        self.rounding = relative_rounding(num_rows, joint)
        possible = truncated_joint > 0  # [C, Z]
        self.num_possible = possible.sum(dim=1)  # [C]
        mass = truncated_joint.sum(dim=1)  # [C]
        self.mean = torch.where(mass > 0, truncated_totals(joint, truncated_joint) / mass, 0.0)  # [C]
        falling = torch.where(possible, self.conditional, -1.0).sort(dim=1, descending=True)
        rising = torch.where(possible, self.conditional, 2.0).sort(dim=1)
        self.falling, self.rising = (_order(by_place.values, self.num_possible) for by_place in (falling, rising))
        # The place of each source class among the falling ones.
        self.place = falling.indices.argsort(dim=1)  # [C, Z]

    def __call__(self, rows: KeptRows, target: Tensor) -> LikelihoodParts:
        """Parts of the likelihood of ``rows`` with labels ``target [n]``."""
        chunk_bytes = CHUNK_BYTES_CPU if rows.probs.device.type == "cpu" else CHUNK_BYTES_ACCELERATOR
        size = max(1, chunk_bytes // (8 * rows.probs.shape[1]))
        split = zip(*(tensor.split(size) for tensor in (*rows, target)), strict=True)
        parts = [self._parts(KeptRows(*chunk), labels) for *chunk, labels in split]
        return LikelihoodParts(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _parts(self, rows: KeptRows, target: Tensor) -> LikelihoodParts:
        label, columns = target.unsqueeze(1), rows.columns.long()  # [m, 1], [m, k]
        probs = rows.probs.to(self.conditional.dtype)  # [m, k]
        kept = (self.conditional[label, columns] * probs).sum(dim=1)  # [m]

        places = self.place[label, columns].sort(dim=1).values  # [m, k], of the kept ones
        value = self.falling.value[label, places]  # [m, k]
        is_possible = places < self.num_possible[label]  # [m, k]
        num_others = self.num_possible[label] - is_possible.sum(dim=1, keepdim=True)  # [m, 1]
        # How many of the source classes that are not kept come before each that is, from either end.
        before = places - torch.arange(places.shape[1], device=places.device)  # [m, k]
        after = torch.where(is_possible, num_others - before, places.shape[1] + num_others)  # [m, k]

        cap, few, many = probs.amin(dim=1), 1 - self.rounding, 1 + self.rounding
        high = self._fill(rows.residual * many, cap, self.falling, label, before, value, num_others)
        low = self._fill(rows.residual * few, cap, self.rising, label, after, value, num_others).minimum(high)
        return LikelihoodParts(kept, low, high, (rows.residual * self.mean[target]).clamp(low, high))

    @staticmethod
    def _fill(
        mass: Tensor, cap: Tensor, order: _Order, label: Tensor, before: Tensor, value: Tensor, num_others: Tensor
    ) -> Tensor:
        """Truncated part ``[m]`` when the mass goes to the source classes that are not kept, in order, up to the cap.

        Kept source classes (their P(y|z) is ``value [m, k]``) are stepped over: those that have no more than j of the
        others ``before`` them come before the j-th of the others, counted from 0.
        """
        num_full = torch.where(cap > 0, mass / cap, 0.0).long().clamp(min=0).unsqueeze(1).minimum(num_others)  # [m, 1]
        ahead = before <= num_full  # [m, k]
        place = num_full + ahead.sum(dim=1, keepdim=True)  # [m, 1], of the one that takes what the full ones leave
        full = order.running[label, place].squeeze(1) - (value * ahead).sum(dim=1)  # [m]
        left = (mass - num_full.squeeze(1) * cap).clamp(min=0.0)  # [m]
        return full.clamp(min=0.0) * cap + left * order.value[label, place].squeeze(1)


def _order(by_place: Tensor, num_possible: Tensor) -> _Order:
    num_target_classes, num_source_classes = by_place.shape
    is_possible = torch.arange(num_source_classes, device=by_place.device) < num_possible.unsqueeze(1)  # [C, Z]
    value = torch.where(is_possible, by_place, 0.0)
    nothing = value.new_zeros(num_target_classes, 1)
    return _Order(torch.cat([value, nothing], dim=1), torch.cat([nothing, value.cumsum(dim=1)], dim=1))
