"""Statistics that forecasts rest on, which know nothing of transfers."""
