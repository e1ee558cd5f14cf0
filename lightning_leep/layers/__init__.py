"""Which layers came from the source, which are trained, and how fast each learns."""

from lightning_leep.layers.groups import layer_groups, rate_factors

__all__ = ["layer_groups", "rate_factors"]
