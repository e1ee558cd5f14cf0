"""The forecast of a run that is under way: what was expected before it, and the curve so far."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.convergence import ConvergenceForecast
from lightning_leep.forecast.statistics.learning_curve import CurveDraws, draw_learning_curves, fit_learning_curve
from lightning_leep.records.curve import AccuracyCurve

# Validations from which on a curve says something of its own time scale.
MIN_VALIDATIONS = 3
# Fraction of the final accuracy that counts as having arrived.
ARRIVED = 0.99
# Coverage of the interval where no forecast says another one.
COVERAGE = 0.9
# No forecast from before training is taken to be sharper than this standard deviation.
SHARPEST = 0.005


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
    forecast: AccuracyForecast | None,
    curve: AccuracyCurve,
    *,
    max_epochs: float | None = None,
    convergence: ConvergenceForecast | None = None,
    test_size: int | None = None,
) -> RunningForecast:
    """Combine the forecast from before training with the validations so far.

    The forecast is the prior of the best accuracy, the validations are fitted by learning curves that saturate or rise
    until the end (``fit_learning_curve``), and a convergence forecast,
    where there is one, is the prior of their time scale. A jump that the curve does not announce, such as that after a
    step of the learning rate, is not foreseen.

    Args:
        forecast: The forecast from before training; None if there was none, and any accuracy is as likely as the next.
        curve: The validations so far.
        max_epochs: Epochs after which training ends; None if it is not known, and the plateau is meant.
        convergence: How fast earlier transfers were.
        test_size: Rows of each validation, from which the noise of the curve is known; None if they are not.

    Returns:
        The forecast of the best accuracy of the whole run. Without a validation it is the one from before; when the
        run is over it is what was reached. The epochs to go are None before the third validation unless there is a
        convergence forecast, and while their 80% range is wider than twice their median (and than 2 epochs).

    Raises:
        ValueError: If ``max_epochs`` or ``test_size`` is not positive.
    """
    if max_epochs is not None and not max_epochs > 0:
        raise ValueError(f"`max_epochs` must be positive or None, got {max_epochs}.")
    if test_size is not None and not test_size > 0:
        raise ValueError(f"`test_size` must be positive or None, got {test_size}.")
    low, value, high, coverage = 0.0, 0.5, 1.0, COVERAGE
    if forecast is not None:
        low, value, high, coverage = forecast.low, forecast.value, forecast.high, forecast.coverage
    end = math.inf if max_epochs is None else float(max_epochs)
    arrivals: list[tuple[float, float]] = []
    if convergence is not None:
        arrivals = [(0.9, convergence.epochs_to_90_percent), (ARRIVED, convergence.epochs_to_99_percent)]
    eta = None if convergence is None else min(convergence.epochs_to_99_percent, end)
    if len(curve) and curve.epochs[-1] >= end:
        low = value = high = curve.best
        eta = 0.0
    elif len(curve):
        epochs, accuracy, mean = np.array(curve.epochs), np.array(curve.accuracy), (low + high) / 2
        deviation = math.inf
        if forecast is not None:
            deviation = max(SHARPEST, (high - low) / 2 / NormalDist().inv_cdf((1 + coverage) / 2))
        posterior = fit_learning_curve(epochs, accuracy, end, mean=mean, arrivals=arrivals, test_size=test_size)
        draws = draw_learning_curves(posterior, epochs, curve.best, mean, deviation)
        tail = (1 - coverage) / 2
        low, value, high = draws.quantiles(draws.best, (tail, 0.5, 1 - tail))
        known = len(curve) >= MIN_VALIDATIONS or convergence is not None
        eta = _epochs_to_go(draws, epochs[-1]) if known else None
    return RunningForecast(
        value=value, low=low, high=high, coverage=coverage, eta_epochs=eta, num_validations=len(curve)
    )


def is_hopeless(interval: Interval, target: float) -> bool:
    """Whether a forecast excludes that a run reaches a target accuracy.

    The upper end of a 90% interval is exceeded by 5% of runs; asked after every validation, more runs than that are
    called hopeless at least once although they are not. To end a run, ask for several validations in a row.

    The interval continues the curve. A jump that the curve does not announce lies outside it: one after a step of the
    learning rate, after a warm-up of several epochs, or when layers are unfrozen. Do not end such runs by it.

    Args:
        interval: A forecast from before or during training.
        target: The wanted accuracy in 0..1.

    Raises:
        ValueError: If ``target`` does not lie in 0..1.

    Example:
        >>> forecast = AccuracyForecast(value=0.7, low=0.6, high=0.8, coverage=0.9, trainable="head", basis="9 rows")
        >>> is_hopeless(forecast, 0.8), is_hopeless(forecast, 0.81)
        (False, True)
    """
    if not 0 <= target <= 1:
        raise ValueError(f"`target` must lie in 0..1, got {target}.")
    return interval.high < target


def _epochs_to_go(draws: CurveDraws, now: float) -> float | None:
    """Median of the epochs still to go; None while they are too uncertain to be of use."""
    remaining = np.maximum(draws.epoch_of(ARRIVED) - now, 0)  # [s]
    low, median, high = draws.quantiles(remaining, (0.1, 0.5, 0.9))
    return median if high - low <= max(2.0, 2 * median) else None
