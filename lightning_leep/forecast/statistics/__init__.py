"""Statistics behind the forecasts, independent of what a transfer is."""
