"""Callbacks for the Trainers of Lightning."""

from lightning_leep.callbacks.hopeless import StopWhenHopeless
from lightning_leep.callbacks.layer_transfer import LayerTransfer
from lightning_leep.callbacks.leep import LEEPCallback

__all__ = ["LEEPCallback", "LayerTransfer", "StopWhenHopeless"]
