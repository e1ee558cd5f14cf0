"""Forecast of the accuracy that a transfer will reach, with an interval, before training."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_leep.forecast.repeats import exchangeable_records
from lightning_leep.forecast.statistics.conformal import (
    check_coverage,
    jackknife_plus,
    leave_one_out,
    min_records,
    normal_quantile,
)
from lightning_leep.forecast.statistics.novelty import pull_inside
from lightning_leep.forecast.statistics.ridge import fit_ridge
from lightning_leep.forecast.transfer_point import (
    EMPIRICAL_PREDICTOR,
    LINEAR_PROBE,
    LOGITS_PROBE,
    TransferPoint,
    describe_outside,
    from_logit,
    frozen_share,
    logit,
    sigmoid,
)
from lightning_leep.records.accuracy_forecast import AccuracyForecast
from lightning_leep.records.history import check_records
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.records.transfer import TransferRecord

CONVERGED = "The forecast assumes training until the accuracy stops rising; a shorter run reaches less."


def forecast_accuracy(
    report: TransferabilityReport,
    history: Iterable[TransferRecord] | None = None,
    *,
    trainable: str = "head",
    trained_from: str = "",
    coverage: float = 0.9,
    test_size: int | None = None,
) -> AccuracyForecast | None:
    r"""Forecast the accuracy that a transfer will reach.

    Without a history, the value is the accuracy p of a leave-one-out linear probe on the n scored rows: on the last
    features for training a head, on the features of all layers for training all, and between the two for training from
    one layer on (:func:`~lightning_leep.forecast.transfer_point.anchor_of`). The interval is Wilson's for a proportion
    out of :math:`1 / (1/n + 1/m + \tau^2 p (1 - p))` rows: from the sampling error of the probe, that of the m rows on
    which the achieved accuracy will be measured, and the difference between probe and trained network (:math:`\tau`, on
    the logit scale). Without features, the value is the accuracy of a probe of the logits or of the expected empirical
    predictor, and the interval has no upper end: a trained head is usually better.

    With at least ``min_records`` earlier transfers of the same ``trainable``, logit(achieved) - logit(p) is regressed
    (``fit_ridge``) on logit(p), log C, log(n / C), and LEEP and leave-one-out LEEP above their floors. Few or
    uninformative records leave p unchanged. The interval is that of the jackknife+, with residuals in units of each
    transfer's own sampling error. Several runs of one transfer count once. If there are enough runs of the new transfer
    itself, the forecast uses only those (:func:`~lightning_leep.forecast.repeats.exchangeable_records`). A transfer
    outside the range of nearly all records (``pull_inside``) is corrected like those nearest to it, and its interval is
    widened to contain the interval without a history.

    Training from scratch does not use the source: logit(achieved) is regressed on log C and log n only.

    Args:
        report: Scores of the source on the target data.
        history: Earlier transfers. Skipped are those with another ``trainable``, incomplete ones, and those without a
            validation. Also skipped are those without a probe of the features if the report has one, or with one if it
            has none.
        trainable: What will be trained.
        trained_from: With "part", the first layer that will be trained, by its name in ``report.layers`` ("layer3.0")
            or that of a module that holds several ("layer3"); empty if that is not known.
        coverage: Coverage of the interval.
        test_size: Number of rows m on which the achieved accuracy will be measured; None for as many as were scored.

    Returns:
        The forecast. None if there is nothing to base it on: training from scratch without a history of it or outside
        its range, or a report without any accuracy.

    Raises:
        TypeError: If ``history`` is not records.
        ValueError: If ``coverage`` is not between 0 and 1, ``test_size`` is not positive, or the report has no layer
            ``trained_from``.
    """
    check_coverage(coverage)
    check_records(history)
    if test_size is not None and test_size < 1:
        raise ValueError(f"`test_size` must be at least 1 or None, got {test_size}.")
    if trained_from and frozen_share(report, trained_from) is None:
        names = [layer.name for layer in report.layers]
        raise ValueError(f"`trained_from` must name a layer of the report, got {trained_from!r}. Its layers: {names}.")
    point = TransferPoint.of(report, test_size, trainable, trained_from)
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
        note = f"The history has {transfers}{runs}; a forecast needs {needed} to learn from them."
        return replace(prior, notes=(*prior.notes, note))
    return prior


def wilson_interval(p: float, n: float, coverage: float) -> tuple[float, float]:
    """Return Wilson's interval for a proportion ``p`` out of ``n`` rows (Wilson, JASA 1927), always within 0..1."""
    z = normal_quantile(coverage)
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return min(p, max(0.0, low)), max(p, min(1.0, high))


def _from_report(point: TransferPoint, trainable: str, coverage: float, test_size: int | None) -> AccuracyForecast:
    p, n = point.accuracy, point.num_samples
    model_variance = point.model_error**2 * sigmoid(point.base) * sigmoid(-point.base)
    low, high = wilson_interval(p, 1 / (1 / n + 1 / point.test_size + model_variance), coverage)
    basis, notes = f"{point.anchor} on {n} rows", [CONVERGED]
    if test_size is None:
        notes.append(f"The achieved accuracy is assumed to be measured on {n} rows, as many as were scored.")
    if trainable != "head" and point.anchor == LINEAR_PROBE:
        notes.append(
            "A probe on frozen features says little about training more than a head: the interval is a rough guess."
        )
    if point.anchor in (EMPIRICAL_PREDICTOR, LOGITS_PROBE):
        high, basis = 1.0, f"{basis}, usually a lower bound"
        why = "there is no linear probe" if point.anchor == EMPIRICAL_PREDICTOR else "the probe uses the logits"
        notes.append(f"Without features {why}, so the interval has no upper end.")
    known: dict[str, Any] = {"trainable": trainable, "basis": basis, "notes": tuple(notes)}
    return AccuracyForecast(value=p, low=low, high=high, coverage=coverage, **known)


def _past_point(record: TransferRecord, trainable: str, anchor: str) -> TransferPoint | None:
    """Return the point of a complete transfer with the same ``trainable`` and anchor, None for any other."""
    if record.trainable != trainable or not record.complete or record.achieved is None:
        return None
    point = TransferPoint.of(record.report, record.test_size, trainable, record.trained_from)
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
        notes.append("The interval is widened to contain the one without a history.")
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
