"""Figures and text for every logger that accepts them.

There is no layout for CUSTOM SCALARS: a run keeps only its last one, so ours would replace the user's. Written to a
run folder of its own, it would be merged in a way that can lose the user's charts (TensorBoard 2.21). The documentation
shows a layout to add by hand.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tag_of(logger: Any, tag: str) -> str:
    """Return a tag as ``logger.log_metrics`` would write it, behind the prefix that the user gave the logger."""
    prefix = getattr(logger, "_prefix", None)
    return f"{prefix}{getattr(logger, 'LOGGER_JOIN_CHAR', '-')}{tag}" if prefix and isinstance(prefix, str) else tag


def takes_figures(logger: Any) -> bool:
    """Whether a Lightning logger's experiment accepts matplotlib figures, as that of a ``TensorBoardLogger`` does."""
    return hasattr(getattr(logger, "experiment", None), "add_figure")


def log_figure(logger: Any, tag: str, figure: "Figure", step: int) -> None:
    """Add a figure under IMAGES; a logger whose experiment has no ``add_figure`` is skipped."""
    if takes_figures(logger):
        logger.experiment.add_figure(tag_of(logger, tag), figure, global_step=step)


def log_text(logger: Any, tag: str, markdown: str, step: int) -> None:
    """Add Markdown under TEXT; a logger whose experiment has no ``add_text`` is skipped."""
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_text"):
        experiment.add_text(tag_of(logger, tag), markdown, global_step=step)
