"""What a transfer achieved, and how fast it got there."""

from lightning_leep.forecast.curve import AccuracyCurve, convergence_scalars

__all__ = ["AccuracyCurve", "convergence_scalars"]
