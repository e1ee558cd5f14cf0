"""What a figure shows once it has been drawn."""

from matplotlib.text import Text


def drawn_texts(figure):
    """Every visible text that says something, with its box in pixels."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = ((text, text.get_window_extent(renderer)) for text in texts)
    # A tick beyond the limits of its axis keeps its label, but is not drawn.
    shown = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in _tick_labels(axis)}
    ticks = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for label in axis.get_ticklabels(which="both")
    }
    return [(text, box) for text, box in boxes if text not in ticks or text in shown]


def _tick_labels(axis):
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def heading(figure):
    """Title and subtitle."""
    title, subtitle = figure.texts
    return title.get_text(), " ".join(subtitle.get_text().split())


def assert_legible(figure):
    """Nothing is cut off at the edge, and no two texts lie on each other."""
    drawn = drawn_texts(figure)
    width, height = figure.canvas.get_width_height()
    for text, box in drawn:
        assert -1 <= box.x0 <= box.x1 <= width + 1, f"{text.get_text()!r} is cut off at the side"
        assert -1 <= box.y0 <= box.y1 <= height + 1, f"{text.get_text()!r} is cut off at the top or bottom"
    for i, (text, box) in enumerate(drawn):
        for other, other_box in drawn[i + 1 :]:
            overlap = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            rise = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert overlap <= 2 or rise <= 2, f"{text.get_text()!r} lies on {other.get_text()!r}"
