"""The figures and the text that the callback logs, for code that wants them outside of a Trainer."""

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
