"""Figures and text to whatever logger can take them.

No layout for CUSTOM SCALARS: a run keeps its last one only, so it would take the place of the user's. From a run folder
of its own it would be merged, but so that charts of the user's can get lost (TensorBoard 2.21). The README has one to
add by hand.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def takes_figures(logger: Any) -> bool:
    """Whether a Lightning logger's experiment takes matplotlib figures, as that of a ``TensorBoardLogger`` does."""
    return hasattr(getattr(logger, "experiment", None), "add_figure")


def log_figure(logger: Any, tag: str, figure: "Figure", step: int) -> None:
    """Add a figure under IMAGES; a logger whose experiment has no ``add_figure`` is passed over."""
    if takes_figures(logger):
        logger.experiment.add_figure(tag, figure, global_step=step)


def log_text(logger: Any, tag: str, markdown: str, step: int) -> None:
    """Add Markdown under TEXT; a logger whose experiment has no ``add_text`` is passed over."""
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_text"):
        experiment.add_text(tag, markdown, global_step=step)
