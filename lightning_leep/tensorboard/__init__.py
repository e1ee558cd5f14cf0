"""The figures and the text that the callback logs, for code that wants them outside of a Trainer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_leep.tensorboard.figures.achieved import predicted_vs_achieved_figure
    from lightning_leep.tensorboard.figures.association import association_figure, strongest_sources_figure
    from lightning_leep.tensorboard.figures.history import history_figure, levels_figure
    from lightning_leep.tensorboard.figures.layers import layers_figure
    from lightning_leep.tensorboard.text import advice_markdown, report_markdown

__all__ = [
    "advice_markdown",
    "association_figure",
    "history_figure",
    "layers_figure",
    "levels_figure",
    "predicted_vs_achieved_figure",
    "report_markdown",
    "strongest_sources_figure",
]

#: Modules that public names are imported from, if not from ``figures.association``.
_MODULES = {
    **dict.fromkeys(("advice_markdown", "report_markdown"), "text"),
    **dict.fromkeys(("history_figure", "levels_figure"), "figures.history"),
    "layers_figure": "figures.layers",
    "predicted_vs_achieved_figure": "figures.achieved",
}

if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used: the plugin of TensorBoard must not wait for torch."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'figures.association')}"), name)
