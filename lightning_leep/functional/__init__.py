"""Scores as pure functions of tensors."""

from lightning_leep.functional.leep import leep

__all__ = ["leep"]
