"""The accuracy that a transfer will reach: a number and an interval, before training."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from lightning_leep.forecast.repeats import exchangeable_records
from lightning_leep.forecast.statistics.conformal import check_coverage, jackknife_plus, leave_one_out, min_records
from lightning_leep.forecast.statistics.novelty import pull_inside
from lightning_leep.forecast.statistics.ridge import fit_ridge
from lightning_leep.forecast.transfer_point import (
    LINEAR_PROBE,
    TransferPoint,
    describe_outside,
    from_logit,
    logit,
    model_error,
    sigmoid,
)
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.records.transfer import TransferRecord

CONVERGED = "The forecast presumes training until the accuracy stops rising; a shorter run stays below."


@dataclass(frozen=True, kw_only=True)
class AccuracyForecast:
    """The accuracy that a transfer is expected to reach on held-out data, with an interval.

    Attributes:
        value: Expected accuracy in 0..1.
        low: Lower end of the interval.
        high: Upper end of the interval.
        coverage: How often intervals made in this way are meant to hold the achieved accuracy.
        trainable: What will be trainable, see :class:`~lightning_leep.records.TransferRecord`.
        basis: What the forecast rests on, in words.
        num_records: Earlier transfers that it rests on, or earlier runs of this one; 0 without a history.
        out_of_range: Whether the transfer lies outside what nearly all of the history has seen.
        notes: What a reader has to know to believe it, one sentence each.
    """

    value: float
    low: float
    high: float
    coverage: float
    trainable: str
    basis: str
    num_records: int = 0
    out_of_range: bool = False
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """The forecast as one sentence, without its notes.

        Example:
            >>> interval = {"value": 0.7, "low": 0.6, "high": 0.8, "coverage": 0.9}
            >>> print(AccuracyForecast(**interval, trainable="head", basis="9 rows").describe())
            Training the head is expected to reach accuracy 0.700 (90% interval 0.600 to 0.800), from 9 rows.
        """
        subjects = {
            "head": "Training the head",
            "all": "Fine-tuning all layers",
            "part": "Fine-tuning part of the layers",
            "gradual": "Unfreezing layers step by step",
            "scratch": "Training from scratch",
        }
        subject = subjects.get(self.trainable, f"Training {self.trainable!r}")
        return (
            f"{subject} is expected to reach accuracy {self.value:.3f} "
            f"({100 * self.coverage:g}% interval {self.low:.3f} to {self.high:.3f}), from {self.basis}."
        )


def forecast_accuracy(
    report: TransferabilityReport,
    history: Iterable[TransferRecord] | None = None,
    *,
    trainable: str = "head",
    coverage: float = 0.9,
    test_size: int | None = None,
) -> AccuracyForecast | None:
    r"""Forecast the accuracy that a transfer will reach.

    Without a history the value is the accuracy p of the leave-one-out linear probe on the n scored rows. The interval
    is Wilson's for a proportion out of :math:`1 / (1/n + 1/m + \tau^2 p (1 - p))` rows, from the sampling error of the
    probe, that of the m rows on which the achieved accuracy will be measured, and the difference between probe and
    trained network (:math:`\tau` on the logit scale). Where there were no features, the value is the accuracy of the
    expected empirical predictor and the interval is open upwards: a trained head is usually better.

    With at least ``min_records`` earlier transfers with the same ``trainable``,
    logit(achieved) - logit(p) is regressed (``fit_ridge``) on logit(p), log C,
    log(n / C), and LEEP and leave-one-out LEEP above their floor: few or uninformative records leave p as it is. The
    interval is the jackknife+ one, from residuals in units of each transfer's own sampling error. Runs of one transfer
    count once, unless there are enough of the new transfer itself, on which the forecast rests alone then
    (:func:`~lightning_leep.forecast.repeats.exchangeable_records`). A transfer further out than nearly all of the
    history (``pull_inside``) is corrected like those nearest to it, and its
    interval is widened to hold the one without history as well.

    Training from scratch uses nothing of the source: logit(achieved) itself is regressed on log C and log n alone.

    Args:
        report: Scores of the source on the target data.
        history: Earlier transfers; those of other strategies, not complete, without a validation, or without a probe
            where the report has one (and the other way round) are passed over.
        trainable: What will be trainable.
        coverage: Wanted coverage of the interval.
        test_size: Rows m on which the achieved accuracy will be measured; None for as many as were scored.

    Returns:
        The forecast, or None where it would rest on nothing: training from scratch without a history of it or outside
        of that history, or a report without any accuracy.

    Raises:
        ValueError: If ``coverage`` does not lie inside 0..1 or ``test_size`` is not positive.
    """
    check_coverage(coverage)
    if test_size is not None and test_size < 1:
        raise ValueError(f"`test_size` must be at least 1 or None, got {test_size}.")
    point = TransferPoint.of(report, test_size, trainable)
    if point is None:
        return None
    comparable = [record for record in history or () if _past_point(record, trainable, point.anchor) is not None]
    prior = None if trainable == "scratch" else _from_report(point, trainable, coverage, test_size)
    needed = min_records(coverage)
    records, same = exchangeable_records(report, comparable, needed)
    if len(records) >= needed:
        return _from_history(point, records, same, prior, trainable, coverage)
    if prior is not None and records:
        runs = f" in {len(comparable)} runs" if len(comparable) > len(records) else ""
        transfers = f"{len(records)} comparable transfer{'s' if len(records) > 1 else ''}"
        note = f"The history holds {transfers}{runs}; it takes {needed} to learn from them."
        return replace(prior, notes=(*prior.notes, note))
    return prior


def wilson_interval(p: float, n: float, coverage: float) -> tuple[float, float]:
    """Wilson's interval for a proportion ``p`` out of ``n`` rows (Wilson, JASA 1927); it never leaves 0..1.

    Example:
        >>> [round(end, 4) for end in wilson_interval(0.5, 100, 0.9)]
        [0.4188, 0.5812]
    """
    z = NormalDist().inv_cdf((1 + coverage) / 2)
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return min(p, max(0.0, low)), max(p, min(1.0, high))


def _from_report(point: TransferPoint, trainable: str, coverage: float, test_size: int | None) -> AccuracyForecast:
    p, n = point.accuracy, point.num_samples
    model_variance = model_error(trainable) ** 2 * sigmoid(point.base) * sigmoid(-point.base)
    low, high = wilson_interval(p, 1 / (1 / n + 1 / point.test_size + model_variance), coverage)
    basis, notes = f"{point.anchor} on {n} rows", [CONVERGED]
    if test_size is None:
        notes.append(f"The achieved accuracy is taken to be measured on {n} rows, as many as were scored.")
    if trainable != "head":
        notes.append(
            "A probe of frozen features says little about training more than a head: the interval is a rough guess."
        )
    if point.anchor != LINEAR_PROBE:
        high = 1.0
        basis = f"{basis}, usually a lower bound"
        notes.append("Without features there is no linear probe, and so no upper end of the interval.")
    return AccuracyForecast(
        value=p, low=low, high=high, coverage=coverage, trainable=trainable, basis=basis, notes=tuple(notes)
    )


def _past_point(record: TransferRecord, trainable: str, anchor: str) -> TransferPoint | None:
    """The point of an earlier transfer with the same ``trainable`` and anchor that is complete; None of any other."""
    if record.trainable != trainable or not record.complete or record.achieved is None:
        return None
    point = TransferPoint.of(record.report, record.test_size, trainable)
    return point if point is not None and point.anchor == anchor else None


def _from_history(
    point: TransferPoint,
    records: Sequence[TransferRecord],
    same: bool,
    prior: AccuracyForecast | None,
    trainable: str,
    coverage: float,
) -> AccuracyForecast | None:
    past = [other for record in records if (other := _past_point(record, trainable, point.anchor)) is not None]
    x = np.stack([other.features for other in past])  # [n, p]
    # logit(achieved) - logit(p)
    y = np.array([logit(r.curve.best, other.test_size) - other.base for r, other in zip(records, past, strict=True)])
    scale = np.array([other.scale for other in past])  # [n]
    inside, outside = pull_inside(x, point.features)
    if outside and prior is None:
        return None
    correction = float(fit_ridge(x, y, scale)(inside[None])[0])
    predictions, residuals = leave_one_out(fit_ridge, x, y, scale, inside)
    ends = jackknife_plus(predictions, residuals * point.scale, coverage)
    low, value, high = (from_logit(point.base + shift, point.test_size) for shift in (ends[0], correction, ends[1]))
    notes = []
    if outside and prior is not None:
        notes.append(describe_outside(trainable, point.features, x))
        low, high = min(low, prior.low), max(high, prior.high)
        notes.append("The interval is widened to hold the one that would be given without a history.")
    basis = f"{len(past)} earlier {'runs of the same transfer' if same else 'transfers'}"
    return AccuracyForecast(
        value=value,
        low=min(low, value),
        high=max(high, value),
        coverage=coverage,
        trainable=trainable,
        basis=f"{basis} and {point.anchor} on {point.num_samples} rows" if point.anchor else basis,
        num_records=len(past),
        out_of_range=outside,
        notes=tuple(notes),
    )
