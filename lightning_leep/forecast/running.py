"""Forecast during training, from the forecast before it and the curve so far."""

import math
from dataclasses import dataclass

import numpy as np

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.convergence import ConvergenceForecast
from lightning_leep.forecast.statistics.conformal import normal_quantile
from lightning_leep.forecast.statistics.learning_curve import CurveDraws, draw_learning_curves, fit_learning_curve
from lightning_leep.records.curve import AccuracyCurve

# Fewest validations from which a curve tells its own time scale.
MIN_VALIDATIONS = 3
# Fraction of the final accuracy that counts as converged.
ARRIVED = 0.99
# Coverage of the interval if there is no forecast from before training.
COVERAGE = 0.9
# Smallest standard deviation that a forecast from before training is given.
SHARPEST = 0.005


@dataclass(frozen=True, kw_only=True)
class RunningForecast:
    """What a run is expected to reach, given its validations so far."""

    value: float  #: Expected best accuracy of the whole run, in 0..1, at least the best so far
    low: float  #: Lower end of the interval
    high: float  #: Upper end of the interval
    coverage: float  #: Share of such intervals that should contain the best accuracy
    #: Expected number of further epochs until 99% of the final accuracy; 0 if it is reached, None while it is too
    #: uncertain.
    eta_epochs: float | None
    num_validations: int  #: Number of validations so far


def update_forecast(
    forecast: AccuracyForecast | None,
    curve: AccuracyCurve,
    *,
    max_epochs: float | None = None,
    convergence: ConvergenceForecast | None = None,
    test_size: int | None = None,
) -> RunningForecast:
    """Combine the forecast from before training with the validations so far.

    The forecast is the prior of the best accuracy. Learning curves that saturate, or rise until the end, are fitted to
    the validations (``fit_learning_curve``); a convergence forecast is the prior of their time scale. A jump that the
    curve does not announce, such as after a step of the learning rate, a long warm-up or the unfreezing of layers, is
    not foreseen. 5% of runs exceed the upper end of a 90% interval at a given validation, more at one of several.

    Args:
        forecast: Forecast from before training; None if there was none: any accuracy is equally likely.
        curve: Validations so far.
        max_epochs: Number of epochs after which training ends; None if unknown: the forecast is for the plateau.
        convergence: How fast earlier transfers converged.
        test_size: Number of rows in each validation, which determines the noise of the curve; None if unknown.

    Returns:
        The forecast of the best accuracy of the whole run. Before the first validation it is ``forecast``; after the
        end it is the accuracy that was reached. ``eta_epochs`` is None before the third validation unless there is a
        convergence forecast, and while its 80% range is wider than both twice its median and 2 epochs.

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
            deviation = max(SHARPEST, (high - low) / 2 / normal_quantile(coverage))
        posterior = fit_learning_curve(epochs, accuracy, end, mean=mean, arrivals=arrivals, test_size=test_size)
        draws = draw_learning_curves(posterior, epochs, curve.best, mean, deviation)
        tail = (1 - coverage) / 2
        low, value, high = draws.quantiles(draws.best, (tail, 0.5, 1 - tail))
        known = len(curve) >= MIN_VALIDATIONS or convergence is not None
        eta = _epochs_to_go(draws, epochs[-1]) if known else None
    return RunningForecast(
        value=value, low=low, high=high, coverage=coverage, eta_epochs=eta, num_validations=len(curve)
    )


def _epochs_to_go(draws: CurveDraws, now: float) -> float | None:
    """Return the median number of epochs to go; None while it is too uncertain."""
    remaining = np.maximum(draws.epoch_of(ARRIVED) - now, 0)  # [s]
    low, median, high = draws.quantiles(remaining, (0.1, 0.5, 0.9))
    return median if high - low <= max(2.0, 2 * median) else None
