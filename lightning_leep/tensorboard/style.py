"""How every figure looks: an opaque light background, colours that survive colour blindness, large type."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design", 2008; line styles and markers say the same once more.
ACHIEVED_COLOR = "#0072B2"
PREDICTED_COLOR = "#D55E00"
REFERENCE_COLOR = "#666666"
HEAT_MAP = "cividis"

# TensorBoard shrinks an image to a card of some 400 pixels: type of 13 points on 6.4 inches is then 11 pixels high.
STYLE = {
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "font.size": 13,
    "axes.titlesize": 15,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "lines.linewidth": 2.2,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Matplotlib's defaults and :data:`STYLE`, whatever style the user has set, which is back afterwards.

    Raises:
        ImportError: If matplotlib is missing, with how to install it.
    """
    try:
        from matplotlib import style
        from matplotlib.backends import backend_agg  # noqa: F401
    except ImportError as error:
        raise ImportError('Figures need matplotlib: `pip install "lightning-leep[figures]"`.') from error
    with style.context(["default", STYLE]):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches that pyplot never hears of. To be called inside :func:`figure_style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
