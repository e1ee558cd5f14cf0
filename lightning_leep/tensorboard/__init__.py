"""What a person sees of a transfer: scalars, figures, a text panel and columns of HPARAMS."""

from lightning_leep.tensorboard.figures.achieved import predicted_vs_achieved_figure
from lightning_leep.tensorboard.figures.association import association_figure, strongest_sources_figure
from lightning_leep.tensorboard.figures.history import history_figure, levels_figure, shown_transfers
from lightning_leep.tensorboard.hparams import complete_hparams, log_hparams, widen_hparams
from lightning_leep.tensorboard.scalars import (
    PREFIX,
    convergence_tags,
    hparam_tags,
    report_tags,
    running_tags,
    validation_tags,
)
from lightning_leep.tensorboard.text import report_markdown
from lightning_leep.tensorboard.writer import log_figure, log_text, takes_figures

__all__ = [
    "PREFIX",
    "association_figure",
    "complete_hparams",
    "convergence_tags",
    "history_figure",
    "hparam_tags",
    "levels_figure",
    "log_figure",
    "log_hparams",
    "log_text",
    "predicted_vs_achieved_figure",
    "report_markdown",
    "report_tags",
    "running_tags",
    "shown_transfers",
    "strongest_sources_figure",
    "takes_figures",
    "validation_tags",
    "widen_hparams",
]
