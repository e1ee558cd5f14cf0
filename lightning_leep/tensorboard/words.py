"""Numbers and curves in words, for the figures and the text panel."""

import re

from lightning_leep.records.curve import AccuracyCurve
from lightning_leep.utils.checks import printable


def percent(value: float) -> str:
    """A fraction as a percentage: "71.2%"."""
    return f"{100 * value:.1f}%"


def epochs(value: float) -> str:
    """A number of epochs with its noun: "1 epoch", "0.5 epochs"."""
    return f"{value:.4g} {'epoch' if value == 1 else 'epochs'}"


def shorten(name: str, length: int) -> str:
    """At most ``length`` characters of a class name.

    A list of synonyms, as in ImageNet, is cut to the first one. A longer name keeps its start and its end
    ("German…inter"), since related classes differ there.
    """
    if len(name) > length:
        name = name.split(",")[0]
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail].rstrip()}…{name[len(name) - tail :].lstrip()}"


def progress_sentence(curve: AccuracyCurve, predicted: float, interval: tuple[float, float] | None = None) -> str:
    """When a run reached its prediction and its best accuracy, in one line.

    Example:
        >>> curve = AccuracyCurve((1, 2, 3), (0.5, 0.75, 0.8))
        >>> progress_sentence(curve, predicted=0.7)
        'Prediction reached after 2 epochs; best 80.0% after 3.'
        >>> progress_sentence(curve, predicted=0.7, interval=(0.6, 0.75))
        'Best 80.0% after 3 epochs, above the interval.'
    """
    if not len(curve):
        return "No validation yet."
    at_best = curve.epochs_to(1.0) or 0.0
    if interval is not None:
        place = "below" if curve.best < interval[0] else "above" if curve.best > interval[1] else "inside"
        return f"Best {percent(curve.best)} after {epochs(at_best)}, {place} the interval."
    reached = curve.epoch_reaching(predicted)
    first = "Prediction not reached" if reached is None else f"Prediction reached after {epochs(reached)}"
    return f"{first}; best {percent(curve.best)} after {at_best:.4g}."


def code(name: str) -> str:
    """Return a name as Markdown code on one line; TensorBoard would drop `<lambda>` as HTML otherwise."""
    return f"`{printable(name).replace('`', chr(39)) or ' '}`"


def escaped(text: str) -> str:
    """Return a sentence as Markdown that shows it, and nothing else: names of users may hold links and images.

    What stands between single backticks stays code.
    """
    text = re.sub("`{2,}", "'", printable(text).replace("\\", "&#92;"))
    parts = text.split("`")
    if len(parts) % 2 == 0:  # the last backtick opens nothing
        parts[-2:] = [f"{parts[-2]}'{parts[-1]}"]
    return "`".join(part if place % 2 else _entities(part) for place, part in enumerate(parts))


def _entities(text: str) -> str:
    return re.sub(r"[*_\[\]!<>|#~]", lambda found: f"&#{ord(found.group())};", re.sub("&(?!#92;)", "&amp;", text))
