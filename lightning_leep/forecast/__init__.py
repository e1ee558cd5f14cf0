"""Forecasts of the accuracy and the speed of a transfer, from its report and from earlier transfers."""

from lightning_leep.forecast.accuracy import AccuracyForecast, forecast_accuracy
from lightning_leep.forecast.convergence import ConvergenceForecast, forecast_convergence
from lightning_leep.forecast.mean_curve import LEEPLevel, MeanCurve, leep_levels
from lightning_leep.forecast.running import RunningForecast, update_forecast

__all__ = [
    "AccuracyForecast",
    "ConvergenceForecast",
    "LEEPLevel",
    "MeanCurve",
    "RunningForecast",
    "forecast_accuracy",
    "forecast_convergence",
    "leep_levels",
    "update_forecast",
]
