"""The forecast of a run that is under way: what was expected before it, and the curve so far."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.convergence import ConvergenceForecast
from lightning_leep.forecast.curve import AccuracyCurve
from lightning_leep.forecast.learning_curve import CurveDraws, fit_learning_curve

# Validations from which on a curve says something of its own time scale.
MIN_VALIDATIONS = 3
# Fraction of the final accuracy that counts as having arrived.
ARRIVED = 0.99


class Interval(Protocol):
    """Whatever has an interval: a forecast before or during training."""

    @property
    def high(self) -> float:
        """Upper end."""


@dataclass(frozen=True, kw_only=True)
class RunningForecast:
    """What a run is expected to reach, given its validations so far.

    Attributes:
        value: Expected best accuracy of the whole run, in 0..1, at least the best so far.
        low: Lower end of the interval.
        high: Upper end of the interval.
        coverage: How often such intervals are meant to hold the best accuracy.
        eta_epochs: More epochs that are expected until 99% of the final accuracy; 0 if that is reached, None as long as
            there is nothing to say.
        num_validations: Validations that it rests on.
    """

    value: float
    low: float
    high: float
    coverage: float
    eta_epochs: float | None
    num_validations: int


def update_forecast(
    forecast: AccuracyForecast,
    curve: AccuracyCurve,
    *,
    max_epochs: float | None = None,
    convergence: ConvergenceForecast | None = None,
) -> RunningForecast:
    """Combine the forecast from before training with the validations so far.

    The forecast is the prior of the final accuracy, the validations are fitted by learning curves
    (:func:`~lightning_leep.forecast.learning_curve.fit_learning_curve`), and a convergence forecast, where there is
    one, is the prior of their time scale.

    Args:
        forecast: The forecast from before training.
        curve: The validations so far.
        max_epochs: Epochs after which training ends; None if it is not known, and the plateau is meant.
        convergence: How fast earlier transfers were.

    Returns:
        The forecast of the best accuracy of the whole run. Without a validation it is the one from before; when the
        run is over it is what was reached. The epochs to go are None before the third validation unless there is a
        convergence forecast, and while their 80% range is wider than twice their median (and than 2 epochs).

    Raises:
        ValueError: If ``max_epochs`` is not positive.
    """
    if max_epochs is not None and not max_epochs > 0:
        raise ValueError(f"`max_epochs` must be positive or None, got {max_epochs}.")
    low, value, high = forecast.low, forecast.value, forecast.high
    end = math.inf if max_epochs is None else float(max_epochs)
    arrivals: list[tuple[float, float]] = []
    if convergence is not None:
        arrivals = [(0.9, convergence.epochs_to_90_percent), (ARRIVED, convergence.epochs_to_99_percent)]
    eta = None if convergence is None else min(convergence.epochs_to_99_percent, end)
    if len(curve) and curve.epochs[-1] >= end:
        low = value = high = curve.best
        eta = 0.0
    elif len(curve):
        now, best = curve.epochs[-1], curve.best
        draws = fit_learning_curve(
            np.array(curve.epochs),
            np.array(curve.accuracy),
            mean=(low + high) / 2,
            deviation=max(1e-3, (high - low) / 2 / NormalDist().inv_cdf((1 + forecast.coverage) / 2)),
            end=end,
            arrivals=arrivals,
        )
        tail = (1 - forecast.coverage) / 2
        # What counts is the best validation of the run: what has been reached is reached.
        low, value, high = (
            min(1.0, max(best, q)) for q in draws.quantiles(draws.last_validation(), (tail, 0.5, 1 - tail))
        )
        known = len(curve) >= MIN_VALIDATIONS or convergence is not None
        eta = _epochs_to_go(draws, now) if known else None
    return RunningForecast(
        value=value, low=low, high=high, coverage=forecast.coverage, eta_epochs=eta, num_validations=len(curve)
    )


def is_hopeless(interval: Interval, target: float) -> bool:
    """Whether a forecast excludes that a run reaches a target accuracy.

    The upper end of a 90% interval is exceeded by 5% of runs; asked after every validation, somewhat more runs than
    that are called hopeless at least once although they are not. A wider interval makes it rarer.

    Args:
        interval: A forecast from before or during training.
        target: The wanted accuracy in 0..1.

    Raises:
        ValueError: If ``target`` does not lie in 0..1.

    Example:
        >>> forecast = AccuracyForecast(value=0.7, low=0.6, high=0.8, coverage=0.9, strategy="head", basis="9 rows")
        >>> is_hopeless(forecast, 0.8), is_hopeless(forecast, 0.81)
        (False, True)
    """
    if not 0 <= target <= 1:
        raise ValueError(f"`target` must lie in 0..1, got {target}.")
    return interval.high < target


def _epochs_to_go(draws: CurveDraws, now: float) -> float | None:
    """Median of the epochs still to go; None while they are too uncertain to be of use."""
    remaining = np.maximum(np.minimum(draws.epoch_of(ARRIVED), draws.end) - now, 0)  # [k, s]
    low, median, high = draws.quantiles(remaining, (0.1, 0.5, 0.9))
    return median if high - low <= max(2.0, 2 * median) else None
