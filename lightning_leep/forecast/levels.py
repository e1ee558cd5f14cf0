"""Curves averaged within levels of LEEP, as the paper draws convergence."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lightning_leep.forecast.mean_curve import MeanCurve, average_curves, difference_curve, with_references
from lightning_leep.records.report import or_nan
from lightning_leep.records.transfer import TransferRecord


@dataclass(frozen=True)
class LEEPLevel:
    """Transfers whose LEEP lies in one level."""

    level: int  #: 1 for the lowest LEEP
    low: float  #: Lower edge of the level
    high: float  #: Upper edge of the level
    records: tuple[TransferRecord, ...]  #: The transfers, in the given order
    accuracy: MeanCurve | None  #: Mean accuracy per epoch; None with fewer than two transfers
    #: Mean accuracy minus that of training from scratch, per epoch; None with fewer than two references.
    difference: MeanCurve | None


def shown_transfers(history: Iterable[TransferRecord]) -> list[TransferRecord]:
    """The transfers that have a level: complete, with a validation and a finite LEEP, not trained from scratch."""
    return [
        record
        for record in history
        if record.complete
        and record.trainable != "scratch"
        and len(record.curve)
        and math.isfinite(or_nan(record.report.leep))
    ]


def leep_levels(history: Iterable[TransferRecord], levels: int = 5, coverage: float = 0.8) -> tuple[LEEPLevel, ...]:
    """Divide transfers into levels of equal width in LEEP and average the curves in each level.

    Source: Nguyen et al., ICML 2020, section 5 (convergence of fine-tuned models; five levels).

    Transfers are comparable only if ``trainable`` is the same; incomplete ones are skipped. Those trained from scratch
    are references for the others on the same data and are not averaged. ``coverage`` is that of the bands around the
    means. The lowest LEEP comes first; levels without a transfer are left out. ``ValueError`` if ``levels`` is not
    positive.
    """
    if levels < 1:
        raise ValueError(f"`levels` must be at least 1, got {levels}.")
    records = shown_transfers(with_references(history))
    if not records:
        return ()
    scores = np.array([record.report.leep for record in records])
    edges = np.linspace(scores.min(), scores.max(), levels + 1)
    # The largest score belongs to the highest level.
    index = np.minimum(np.searchsorted(edges, scores, side="right"), levels) - 1
    result = []
    for level in range(levels):
        inside = tuple(record for record, i in zip(records, index, strict=True) if i == level)
        if not inside:
            continue
        curves = [(record.curve.epochs, record.curve.accuracy) for record in inside]
        differences = [curve for record in inside if (curve := difference_curve(record))]
        result.append(
            LEEPLevel(
                level=level + 1,
                low=float(edges[level]),
                high=float(edges[level + 1]),
                records=inside,
                accuracy=average_curves(curves, np.ones(len(curves)), coverage, (0, 1)),
                difference=average_curves(differences, np.ones(len(differences)), coverage, (-1, 1)),
            )
        )
    return tuple(result)
