"""Callbacks for the Trainers of Lightning."""

from lightning_leep.callbacks.hopeless import StopWhenHopeless
from lightning_leep.callbacks.leep import LEEPCallback
from lightning_leep.layers.layer_transfer import LayerTransfer

__all__ = ["LEEPCallback", "LayerTransfer", "StopWhenHopeless"]
