"""What to train: the cheapest choice whose forecast cannot be told from the best."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from lightning_leep.forecast.accuracy import AccuracyForecast, forecast_accuracy
from lightning_leep.layers.layer_transfer import LayerTransfer
from lightning_leep.records.layers import LayerScore
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.records.transfer import TransferRecord

#: From how many images a class on data are many, and from which share of the labels' entropy that leave-one-out LEEP
#: explains on they are similar to the source's. The notes that the table below comes from have no numbers.
MANY_IMAGES, SIMILAR = 100, 0.25
#: A choice is as good as the best if its forecast is not lower by more than this part of the standard error of their
#: difference, or by less than ``MARGIN``. Chosen on ResNet-20, checked on ResNet-32 (benchmarks/layer_advice.py).
STANDARD_ERRORS, MARGIN = 0.5, 0.005

#: Rows of the table in the notes of Stanford's CS231n on transfer learning: (many images, similar to the source).
ROWS = {
    (False, True): "Little data, similar to the source's: a linear head on the last features.",
    (True, True): "Much data, similar to the source's: fine-tuning all layers is safe.",
    (False, False): "Little data, different from the source's: a linear head on an earlier layer.",
    (True, False): "Much data, different from the source's: fine-tuning all layers.",
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to train.

    Attributes:
        what: In words.
        trainable: "head", "part" or "all", as in a :class:`~lightning_leep.records.TransferRecord`.
        trained_from: First layer that is trained; "head" for a new head, empty for all layers.
        reads: Layer whose features the head reads; empty for the last one.
        forecast: The accuracy that it will reach.
        trained_share: Share of the source's parameters that are trained, 0..1; None if unknown.
        backward_share: Share of the source's layers that the backward pass runs through, 0..1.
    """

    what: str
    trainable: str
    trained_from: str
    reads: str = ""
    forecast: AccuracyForecast
    trained_share: float | None
    backward_share: float


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Ways to train, with what is expected of each.

    Attributes:
        choices: From the cheapest to the most expensive.
        recommended: Place of the recommended choice; None if nothing can be told.
        data: What a rule of thumb says about data like these.
        notes: What a reader has to know to believe it, one sentence each.
    """

    choices: tuple[Choice, ...]
    recommended: int | None
    data: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{'':2}{'what to train':34}{'accuracy':>9}{'interval':>16}{'parameters':>12}{'backward':>10}"]
        for place, choice in enumerate(self.choices):
            forecast, share = choice.forecast, choice.trained_share
            interval = f"{forecast.low:.3f} to {forecast.high:.3f}"
            mark = ">" if place == self.recommended else ""
            trained = "" if share is None else f"{share:.0%}"
            lines.append(
                f"{mark:2}{choice.what:34.34}{forecast.value:9.3f}{interval:>16}{trained:>12}{choice.backward_share:10.0%}"
            )
        return "\n".join([*lines, self.describe(), self.data, *self.notes])

    def describe(self) -> str:
        """Return the recommendation as one sentence."""
        if self.recommended is None:
            return "Nothing can be recommended: the choices cannot be told apart on these data."
        choice = self.choices[self.recommended]
        return f"Recommended: {choice.what}, expected to reach accuracy {choice.forecast.value:.3f}."

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        return asdict(self)

    def callback(self, **kwargs: Any) -> LayerTransfer:
        """Return the callback that trains as recommended.

        Args:
            kwargs: Other arguments of :class:`~lightning_leep.LayerTransfer`, such as ``learning_rates``.

        Raises:
            ValueError: If nothing is recommended, or a head on an earlier layer, which needs another module.
        """
        choice = None if self.recommended is None else self.choices[self.recommended]
        if choice is None or choice.reads:
            found = "no recommendation" if choice is None else f"a head on {choice.reads}, which needs another module"
            raise ValueError(f"A callback needs a recommendation that a callback can act on, got {found}.")
        return LayerTransfer(choice.trained_from or None, **kwargs)


def advise(report: TransferabilityReport, history: Iterable[TransferRecord] | None = None) -> Advice:
    """Compare ways to train a network on the data of a report, and recommend one.

    The choices are a linear head on the last features, one on an earlier layer, the last stage and all layers. The
    recommended one is the cheapest whose forecast is not below the best by more than ``STANDARD_ERRORS`` standard
    errors of the difference. These errors are those of independent samples; the probes see the same rows, so they
    are on the safe side. A stage is a row of layers under one name ("layer3.0", "layer3.1").

    Args:
        report: Scores of the source on the target data.
        history: Earlier transfers, which correct the forecasts.

    Returns:
        The advice. Without scores of layers only a head and all layers are compared.

    Raises:
        ValueError: If the report has no linear probe.

    Source: Stanford CS231n, notes on transfer learning; Yosinski et al., NeurIPS 2014 (arXiv:1411.1792).
    """
    if report.linear_probe_accuracy is None or not math.isfinite(report.linear_probe_accuracy):
        raise ValueError("`report` must have a linear probe to give advice, got none. Score features of the source.")
    records = list(history or ())
    choices = [choice for choice in _choices(report, records) if choice is not None]
    standard_error = report.linear_probe_accuracy_standard_error or 0.0
    best = max(choices, key=lambda choice: choice.forecast.value)
    tolerance = max(MARGIN, STANDARD_ERRORS * math.sqrt(2) * standard_error)
    as_good = [
        place for place, choice in enumerate(choices) if choice.forecast.value >= best.forecast.value - tolerance
    ]
    notes = []
    if not report.layers:
        notes.append('The report has no scores of layers: score with `layers="auto"` to compare more choices.')
    chance = report.largest_class_rate or 0.0
    useless = best.forecast.value - 2 * standard_error <= chance
    if useless:
        notes.append("No choice is expected to do better than always guessing the largest class.")
    return Advice(
        choices=tuple(choices), recommended=None if useless else as_good[0], data=_row(report), notes=tuple(notes)
    )


def _choices(report: TransferabilityReport, history: list[TransferRecord]) -> list[Choice | None]:
    layers, first = report.layers, _last_stage(report.layers)
    total = max((layer.num_parameters or 0 for layer in layers), default=0)
    last = next((layer for layer in layers if layer.name == first), None)

    def choice(what: str, trainable: str, trained_from: str, place: int, before: int | None) -> Choice | None:
        known = trained_from if trainable == "part" else ""
        forecast = forecast_accuracy(report, history, trainable=trainable, trained_from=known)
        share = None if not total or before is None else 1 - before / total
        backward = 1 - place / len(layers) if layers else float(trainable != "head")
        return forecast and Choice(
            what=what,
            trainable=trainable,
            trained_from=trained_from,
            forecast=forecast,
            trained_share=share,
            backward_share=backward,
        )

    head = choice("a linear head on the last features", "head", "head", len(layers), total)
    found = [head, _earlier_head(head, layers)]
    if last is not None:
        place = layers.index(last)
        found.append(choice(f"from {first} on", "part", first, place, layers[place - 1].num_parameters))
    return [*found, choice("all layers", "all", "", 0, 0)]


def _earlier_head(head: Choice | None, layers: tuple[LayerScore, ...]) -> Choice | None:
    """Return a head on the best layer before the last, if that is better than the last by two standard errors."""
    earlier = [layer for layer in layers[:-1] if layer.probe_accuracy is not None and not layer.feeds_head]
    if head is None or not earlier:
        return None
    best = max(earlier, key=lambda layer: layer.probe_accuracy or 0.0)
    gain = (best.probe_accuracy or 0.0) - head.forecast.value
    if gain < 2 * (best.probe_standard_error or 0.0):  # the best of many is partly luck
        return None
    moved = replace(
        head.forecast,
        value=min(1.0, head.forecast.value + gain),
        low=min(1.0, head.forecast.low + gain),
        high=min(1.0, head.forecast.high + gain),
        basis=f"the linear probe on {best.name}",
    )
    return replace(head, what=f"a linear head on {best.name}", reads=best.name, forecast=moved)


def _last_stage(layers: tuple[LayerScore, ...]) -> str:
    """Return the first layer of the last stage: the last row of layers under one name, else the last third of them."""
    names = [layer.name for layer in layers if not layer.feeds_head]
    if len(names) < 3:
        return ""
    stages = [name.rpartition(".")[0] for name in names]
    stage = [name for name, holder in zip(names, stages, strict=True) if holder == stages[-1]]
    if stages[-1] and 1 < len(stage) <= 2 * len(names) / 3:
        return stage[0]
    return names[-max(1, len(names) // 3)]


def _row(report: TransferabilityReport) -> str:
    images = report.num_samples / max(report.num_target_classes, 1)
    explained = 0.0
    if report.leave_one_out_leep is not None and report.leave_one_out_floor:
        explained = 1 - report.leave_one_out_leep / report.leave_one_out_floor
    row = ROWS[images >= MANY_IMAGES, explained >= SIMILAR]
    return f"{row} ({images:.0f} images a class; leave-one-out LEEP explains {max(0.0, explained):.0%} of the labels.)"
