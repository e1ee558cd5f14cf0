"""What a transfer will achieve and how fast, from its report and from earlier transfers; and what it did achieve."""

from lightning_leep.forecast.accuracy import AccuracyForecast, forecast_accuracy
from lightning_leep.forecast.aligned import MeanCurve
from lightning_leep.forecast.convergence import ConvergenceForecast, forecast_convergence
from lightning_leep.forecast.curve import AccuracyCurve, convergence_scalars
from lightning_leep.forecast.history import History, load_history, save_record
from lightning_leep.forecast.levels import LEEPLevel, leep_levels
from lightning_leep.forecast.record import TransferRecord
from lightning_leep.forecast.running import RunningForecast, is_hopeless, update_forecast

__all__ = [
    "AccuracyCurve",
    "AccuracyForecast",
    "ConvergenceForecast",
    "History",
    "LEEPLevel",
    "MeanCurve",
    "RunningForecast",
    "TransferRecord",
    "convergence_scalars",
    "forecast_accuracy",
    "forecast_convergence",
    "is_hopeless",
    "leep_levels",
    "load_history",
    "save_record",
    "update_forecast",
]
