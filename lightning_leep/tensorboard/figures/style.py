"""The style of all figures: white background, colours that colour-blind readers can tell apart, large type."""

from collections.abc import Callable
from functools import wraps
from textwrap import wrap
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
else:  # it is imported when a figure is drawn
    Axes = Axis = Figure = Any

P = ParamSpec("P")

# Okabe and Ito, "Color Universal Design", 2008. Line styles and markers carry the same information as the colours.
ACHIEVED_COLOR = "#0072B2"
PREDICTED_COLOR = "#D55E00"
EXPECTED_COLOR = "#009E73"
REFERENCE_COLOR = "#666666"
HEAT_MAP = "Blues"

#: Inches. TensorBoard's IMAGES tab shows an image 350 pixels wide, which makes 12-point type 11 pixels high.
#: Its TIME SERIES tab shows an image 215 pixels high: a figure about 3.6 inches high keeps the type at 10 pixels.
WIDTH = 5.2
#: Characters of 12-point type that fit into the width.
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


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw with matplotlib's defaults and :data:`STYLE`; the user's own style is ignored and restored afterwards.

    Without matplotlib the function raises ``ImportError``, which says how to install it.
    """

    @wraps(draw)
    def draw_styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        try:
            from matplotlib import style
            from matplotlib.backends import backend_agg  # noqa: F401
        except ImportError as error:
            raise ImportError('Figures need matplotlib: `pip install "lightning-leep[figures]"`.') from error
        with style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return draw_styled


def new_figure(height: float, title: str, subtitle: str) -> tuple[Figure, Axes]:
    """A figure with a heading and ``height`` inches of axes below it, unknown to pyplot; use it in :func:`styled`."""
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
    return figure, figure.add_subplot()


def legend(figure: Figure, columns: int = 2) -> None:
    """Put a legend below the axes, with lines that are long enough to tell their styles apart."""
    spaces = {"handlelength": 2.0, "columnspacing": 0.9, "handletextpad": 0.4}
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, **spaces)


def percent_axis(axis: Axis) -> None:
    """Write the numbers of an axis as percentages."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(xmax=1))


def accuracy_axis(axes: Axes) -> None:
    """Percentages upwards over at least 10 points, so that a flat curve looks flat."""
    percent_axis(axes.yaxis)
    axes.locator_params(axis="y", nbins=6)
    low, high = axes.get_ylim()
    margin = max(0.0, 0.055 - (high - low) / 2)
    # A line at 0% or 100% is not cut off.
    axes.set_ylim(max(-0.02, low - margin), min(1.02, high + margin))
