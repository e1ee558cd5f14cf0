"""Weighted averages of curves that were measured at different epochs, and those within levels of LEEP."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightning_leep.forecast.statistics.conformal import Array, normal_quantile
from lightning_leep.records.history import History
from lightning_leep.records.report import or_nan
from lightning_leep.records.transfer import TransferRecord

#: Levels of LEEP, as in the LEEP paper, and the transfers in each that a short history should have.
LEVELS, RECORDS_PER_LEVEL = 5, 4


@dataclass(frozen=True)
class MeanCurve:
    """A weighted average of curves, with a band."""

    epochs: tuple[float, ...]  #: Epochs trained
    mean: tuple[float, ...]  #: Mean at each epoch
    low: tuple[float, ...]  #: Lower end of the band
    high: tuple[float, ...]  #: Upper end of the band
    num_curves: int  #: Number of curves


def effective_number(weights: Array) -> float:
    """Return Kish's effective number of records, (sum of w)^2 / sum of w^2, over the last dimension."""
    return weights.sum(-1) ** 2 / np.square(weights).sum(-1)


def average_curves(
    curves: Sequence[tuple[Sequence[float], Sequence[float] | Array]],
    weights: Array,
    coverage: float,
    bounds: tuple[float, float],
) -> MeanCurve | None:
    r"""Return the weighted average of curves (epochs and values) that may have been measured at different epochs.

    Each curve is interpolated linearly, never extrapolated. Epochs covered by less than half of the weight are left
    out, because the average would jump to those few curves. The band is for one more curve, if deviations are normal:
    mean :math:`\pm z s \sqrt{1 + 1/n_\text{eff}}` with the weighted standard deviation s, clipped to ``bounds``. None
    unless two curves of positive weight overlap.
    """
    if np.count_nonzero(weights) < 2:
        return None
    epochs = np.unique([epoch for times, _ in curves for epoch in times])  # [t]
    values = np.stack([np.interp(epochs, times, heights, np.nan, np.nan) for times, heights in curves])  # [n, t]
    measured = np.where(np.isnan(values), 0, weights[:, None])  # [n, t]
    counted = np.count_nonzero(measured, axis=0) >= 2
    keep = counted & (measured.sum(0) >= 0.5 * weights.sum())
    if not keep.any():
        return None
    epochs, values, measured = epochs[keep], np.nan_to_num(values[:, keep]), measured[:, keep]
    share = measured / measured.sum(0)  # [n, t]
    mean = (share * values).sum(0)
    number = effective_number(measured.T)
    # Weighted variance divided by 1 - 1 / n_eff, which is unbiased for weights that do not depend on the values.
    spread = np.sqrt((share * (values - mean) ** 2).sum(0) / (1 - 1 / number))
    half = normal_quantile(coverage) * spread * np.sqrt(1 + 1 / number)
    low, high = np.maximum(mean - half, bounds[0]), np.minimum(mean + half, bounds[1])
    columns = [tuple(column.tolist()) for column in (epochs, mean, low, high)]
    return MeanCurve(columns[0], columns[1], columns[2], columns[3], num_curves=int(np.count_nonzero(weights)))


def with_references(records: Iterable[TransferRecord]) -> list[TransferRecord]:
    """Give each record without a reference the curve of the latest complete run from scratch on the same data, if any.

    The same data have the same name, not empty, and class counts: the name alone may be that of a class that wraps any
    data. Records of "scratch" get none.
    """
    records = list(records)
    scratch = {
        _data(record): record.curve  # the latest replaces earlier ones
        for record in History(records)
        if record.trainable == "scratch" and record.target_name and record.complete and len(record.curve)
    }
    return [
        replace(record, reference=scratch[_data(record)])
        if record.reference is None and record.trainable != "scratch" and _data(record) in scratch
        else record
        for record in records
    ]


def _data(record: TransferRecord) -> tuple[str, tuple[int, ...]]:
    return record.target_name, record.report.class_counts  # whose sum is the number of rows


def difference_curve(record: TransferRecord) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return epochs, and accuracy minus reference, where both are known; None if nowhere."""
    if record.reference is None:
        return None
    differences = record.curve.difference_to(record.reference)
    pairs = [(e, d) for e, d in zip(record.curve.epochs, differences, strict=True) if d is not None]
    return (tuple(e for e, _ in pairs), tuple(d for _, d in pairs)) if pairs else None


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


def leep_levels(
    history: Iterable[TransferRecord], levels: int | None = LEVELS, coverage: float = 0.8
) -> tuple[LEEPLevel, ...]:
    """Divide transfers into levels of equal width in LEEP and average the curves in each level.

    Source: Nguyen et al., ICML 2020, section 5 (convergence of fine-tuned models; five levels).

    Transfers are comparable only if ``trainable`` is the same; incomplete ones are skipped. Those trained from scratch
    are references for the others on the same data and are not averaged. Without a number of ``levels`` there are 2
    to 5, so that each has about four transfers. ``coverage`` is that of the bands around the means. The lowest LEEP
    comes first; levels without a transfer are left out. ``ValueError`` if ``levels`` is not positive.
    """
    records = shown_transfers(with_references(history))
    if levels is None:
        levels = min(LEVELS, max(2, len(records) // RECORDS_PER_LEVEL))
    if levels < 1:
        raise ValueError(f"`levels` must be at least 1, got {levels}.")
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
