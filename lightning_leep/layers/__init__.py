"""What to train, which layers came from the source, which are trained, and how fast each learns."""

from typing import TYPE_CHECKING, Any

from lightning_leep.layers.advice import Advice, Choice, advise

if TYPE_CHECKING:
    from lightning_leep.layers.groups import layer_groups, rate_factors

__all__ = ["Advice", "Choice", "advise", "layer_groups", "rate_factors"]

if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Import what needs torch when it is first used: advice needs none."""
        if name not in ("layer_groups", "rate_factors"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from lightning_leep.layers import groups

        return getattr(groups, name)
