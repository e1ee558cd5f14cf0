"""During training: what is measured, forecast, logged and recorded."""
