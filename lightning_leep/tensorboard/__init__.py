"""What a person sees of a transfer: scalars, figures, a text panel and columns of HPARAMS."""

from lightning_leep.tensorboard.figures.achieved import predicted_vs_achieved_figure
from lightning_leep.tensorboard.figures.association import association_figure, strongest_sources_figure
from lightning_leep.tensorboard.figures.history import history_figure, levels_figure
from lightning_leep.tensorboard.hparams import log_hparams
from lightning_leep.tensorboard.scalars import hparam_tags
from lightning_leep.tensorboard.text import report_markdown

__all__ = [
    "association_figure",
    "history_figure",
    "hparam_tags",
    "levels_figure",
    "log_hparams",
    "predicted_vs_achieved_figure",
    "report_markdown",
    "strongest_sources_figure",
]
