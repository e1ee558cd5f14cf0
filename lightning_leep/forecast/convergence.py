"""Forecast of how fast a transfer will converge, from earlier transfers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.mean_curve import (
    MeanCurve,
    average_curves,
    difference_curve,
    effective_number,
    with_references,
)
from lightning_leep.forecast.repeats import exchangeable_records
from lightning_leep.forecast.statistics.conformal import Array, check_coverage, normal_quantile
from lightning_leep.records.history import check_records
from lightning_leep.records.report import TransferabilityReport, or_nan
from lightning_leep.records.transfer import TransferRecord

# Fewest records for a forecast, and the number of levels that the paper divides its scores into.
MIN_RECORDS = 5
LEVELS = 5


@dataclass(frozen=True, kw_only=True)
class ConvergenceForecast:
    """How fast earlier transfers with a similar LEEP converged."""

    relative: MeanCurve  #: Accuracy per epoch as a fraction of the best of the run, with a band
    #: Accuracy per epoch minus that of training from scratch, with a band; None without references.
    difference: MeanCurve | None
    epochs_to_50_percent: float  #: Expected epochs until half of the best accuracy
    epochs_to_90_percent: float  #: Expected epochs until 90% of the best accuracy
    epochs_to_99_percent: float  #: Expected epochs until 99% of the best accuracy
    #: Expected epochs until the run is above the reference at the same epoch: the weighted median; None if most runs
    #: never were, or without references.
    epoch_passing_reference: float | None
    trainable: str  #: What will be trained
    coverage: float  #: Coverage of the bands
    basis: str  #: What the forecast is based on, in words
    num_records: int  #: Number of earlier transfers, or of earlier runs of this one, that it averages
    effective_records: float  #: Kish's effective number of records, given their weights
    out_of_range: bool  #: Whether the LEEP (from scratch: the floor of LEEP) lies outside the range of the records

    def accuracy(self, forecast: AccuracyForecast) -> MeanCurve:
        """Return the expected accuracy per epoch with a band, given a forecast of the accuracy.

        The errors of the two forecasts are assumed to be independent.
        """
        mean = np.array(self.relative.mean)  # [t]
        # Converts the coverage of the accuracy forecast to that of the bands, as for normal errors.
        unit = normal_quantile(self.coverage) / normal_quantile(forecast.coverage)
        ends = []
        for relative_end, end, sign in ((self.relative.low, forecast.low, -1), (self.relative.high, forecast.high, 1)):
            of_height = unit * (end - forecast.value) * mean
            of_speed = forecast.value * (np.array(relative_end) - mean)
            ends.append(np.clip(forecast.value * mean + sign * np.hypot(of_height, of_speed), 0, 1))
        low, high = (tuple(end.tolist()) for end in ends)
        expected = tuple((forecast.value * mean).tolist())
        return replace(self.relative, mean=expected, low=low, high=high)

    def describe(self) -> str:
        """Return the forecast as one sentence."""
        passing = ""
        if self.difference is not None:
            epoch = self.epoch_passing_reference
            passing = ", never above training from scratch" if epoch is None else f", above scratch by epoch {epoch:g}"
        score = "number of classes" if self.trainable == "scratch" else "LEEP"
        outside = f", none of them with a {score} like this one's" if self.out_of_range else ""
        return (
            f"Expected to reach half of its best accuracy by epoch {self.epochs_to_50_percent:.1f}, 90% by epoch "
            f"{self.epochs_to_90_percent:.1f}, 99% by epoch {self.epochs_to_99_percent:.1f}{passing}, "
            f"from {self.basis}{outside}."
        )


def forecast_convergence(
    report: TransferabilityReport,
    history: Iterable[TransferRecord] | None,
    *,
    trainable: str = "head",
    coverage: float = 0.8,
) -> ConvergenceForecast | None:
    """Average the curves of earlier transfers with the same ``trainable``, weighted by how close their LEEP is.

    The LEEP paper (Nguyen et al. 2020, section 5) divides the LEEP scores into five levels, and averages in each the
    accuracy minus that of a model trained from scratch. Here the levels are smooth: Gaussian weights around this LEEP,
    with the smallest bandwidth for which the effective number of records is a fifth of all and at least 5. Training
    from scratch does not use the source, so its records are weighted by the floor of LEEP, -H(Y), instead.

    Args:
        report: Scores of the source on the target data.
        history: Earlier transfers. Only complete ones with at least two validations count, and several runs of one
            transfer count once (:func:`~lightning_leep.forecast.repeats.exchangeable_records`). A record without a
            reference is compared with a run from scratch on the same data, if there is one.
        trainable: What will be trained.
        coverage: Coverage of the bands.

    Returns:
        The forecast; None with fewer than 5 such transfers, or if the report lacks the score.

    Raises:
        TypeError: If ``history`` is not records.
        ValueError: If ``coverage`` is not between 0 and 1.
    """
    check_coverage(coverage)
    check_records(history)
    comparable = [
        record
        for record in with_references(history or ())
        if record.trainable == trainable
        and record.complete
        and len(record.curve) >= 2
        and record.curve.best > 0
        and math.isfinite(_score(record.report, trainable))
    ]
    records, same = exchangeable_records(report, comparable, MIN_RECORDS)
    score = _score(report, trainable)
    if len(records) < MIN_RECORDS or not math.isfinite(score):
        return None
    scores = np.array([_score(record.report, trainable) for record in records])  # [n]
    weights = _kernel_weights(scores - score, max(MIN_RECORDS, len(records) / LEVELS))
    # Fractions of the best accuracy.
    curves = [(record.curve.epochs, np.array(record.curve.accuracy) / record.curve.best) for record in records]
    relative = average_curves(curves, weights, coverage, (0, 1))
    if relative is None:
        return None
    differences = [(curve, w) for r, w in zip(records, weights, strict=True) if (curve := difference_curve(r))]
    difference = None
    if len(differences) >= MIN_RECORDS:
        known, shares = zip(*differences, strict=True)
        difference = average_curves(known, np.array(shares), coverage, (-1, 1))
    epochs = [[record.curve.epochs_to(fraction) or 0.0 for fraction in (0.5, 0.9, 0.99)] for record in records]
    means = np.average(epochs, axis=0, weights=weights).tolist()
    return ConvergenceForecast(
        relative=relative,
        difference=difference,
        epochs_to_50_percent=means[0],
        epochs_to_90_percent=means[1],
        epochs_to_99_percent=means[2],
        epoch_passing_reference=None if difference is None else _median_passing(records, weights),
        trainable=trainable,
        coverage=coverage,
        basis=f"{len(records)} earlier {'runs of the same transfer' if same else 'transfers'}",
        num_records=len(records),
        effective_records=float(effective_number(weights)),
        out_of_range=not (same or scores.min() <= score <= scores.max()),
    )


def _score(report: TransferabilityReport, trainable: str) -> float:
    return report.floor if trainable == "scratch" else or_nan(report.leep)


def _kernel_weights(distances: Array, wanted: float) -> Array:
    """Return Gaussian weights with the smallest bandwidth for an effective number of at least ``wanted``."""
    squares = np.square(distances) - np.square(distances).min()  # the nearest record always has weight 1
    if squares.max() == 0:
        return np.ones_like(squares)
    low, high = math.log(squares.max()) - 40.0, math.log(squares.max()) + 20.0  # of the squared bandwidth
    for _ in range(60):
        middle = (low + high) / 2
        if effective_number(np.exp(-squares / (2 * math.exp(middle)))) < wanted:
            low = middle
        else:
            high = middle
    return np.exp(-squares / (2 * math.exp(high)))


def _median_passing(records: list[TransferRecord], weights: Array) -> float | None:
    """Return the weighted median over the records with a reference; None if that is never."""
    pairs = [
        (math.inf if (epoch := record.curve.epoch_passing(record.reference)) is None else epoch, weight)
        for record, weight in zip(records, weights, strict=True)
        if record.reference is not None
    ]
    pairs.sort()
    cumulated = np.cumsum([weight for _, weight in pairs])
    median = pairs[int(np.searchsorted(cumulated, cumulated[-1] / 2))][0]
    return median if math.isfinite(median) else None
