"""How every figure looks: an opaque light background, colours that survive colour blindness, large type."""

from collections.abc import Callable
from functools import wraps
from textwrap import wrap
from typing import TYPE_CHECKING, ParamSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

# Okabe and Ito, "Color Universal Design", 2008; line styles and markers say the same once more.
ACHIEVED_COLOR = "#0072B2"
PREDICTED_COLOR = "#D55E00"
EXPECTED_COLOR = "#009E73"
REFERENCE_COLOR = "#666666"
HEAT_MAP = "Blues"

#: Inches. TensorBoard's IMAGES tab shows an image 350 pixels wide: type of 12 points on this is then 11 pixels high.
#: (Its TIME SERIES tab shows one 215 pixels high: some 3.6 inches keep the type at 10 pixels.)
WIDTH = 5.2
#: Characters that fit the width in 12 points.
LINE = 56
STYLE = {
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "font.size": 13,
    "text.parse_math": False,  # a class may be called "$5 note"
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "lines.linewidth": 2.2,
}


def styled(draw: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """Draw with matplotlib's defaults and :data:`STYLE`, whatever style the user has set, which is back afterwards.

    Raises:
        ImportError: On a call, if matplotlib is missing, with how to install it.
    """

    @wraps(draw)
    def draw_styled(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        try:
            from matplotlib import style
            from matplotlib.backends import backend_agg  # noqa: F401
        except ImportError as error:
            raise ImportError('Figures need matplotlib: `pip install "lightning-leep[figures]"`.') from error
        with style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return draw_styled


def new_figure(height: float, title: str, subtitle: str) -> "Figure":
    """A figure with a heading, ``height`` inches below it, that pyplot never hears of; inside :func:`styled`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines = [line for sentence in subtitle.split("\n") for line in wrap(sentence, LINE)]
    heading = 0.4 + 0.21 * len(lines)
    full = height + heading
    figure = Figure(figsize=(WIDTH, full), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, height / full)))
    FigureCanvasAgg(figure)
    figure.text(0.02, 1 - 0.08 / full, title, va="top", fontsize=15, weight="bold")
    figure.text(0.02, 1 - 0.38 / full, "\n".join(lines), va="top", fontsize=12)
    return figure
