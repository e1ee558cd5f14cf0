"""What to train: the cheapest way whose forecast cannot be told from the best."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lightning_leep.forecast.accuracy import AccuracyForecast, forecast_accuracy
from lightning_leep.records.history import check_records
from lightning_leep.records.layers import HEAD_INPUT, STEM, LayerScore
from lightning_leep.records.report import TransferabilityReport, check_report, or_nan
from lightning_leep.records.report_notes import LOGITS, explained_share
from lightning_leep.records.transfer import TransferRecord
from lightning_leep.utils.checks import plain

if TYPE_CHECKING:  # a page shows advice without torch
    from lightning_leep.layers.groups import LearningRates
    from lightning_leep.layers.layer_transfer import LayerTransfer

#: A forecast cannot be told from the best if it is lower by less than this many standard errors of the difference, or
#: by less than ``MARGIN``. Chosen on ResNet-20, checked on ResNet-32 (benchmarks/layer_advice.py).
STANDARD_ERRORS, MARGIN = 0.25, 0.005
#: The table of CS231n has no numbers. From so many rows a class on, data are called much here, and from this share of
#: the labels' entropy on that leave-one-out LEEP explains, similar.
MUCH_DATA, SIMILAR = 50, 0.25
#: That table, by (much data, similar).
RULES = {
    (False, True): "Little data, similar to the source's: a linear head on the last features",
    (True, True): "Much data, similar to the source's: fine-tuning all layers is safe",
    (False, False): "Little data, different from the source's: a linear head on an earlier layer",
    (True, False): "Much data, different from the source's: fine-tune all layers",
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to train."""

    what: str  #: In words
    trainable: str  #: "head", "part" or "all", as in a :class:`~lightning_leep.records.TransferRecord`
    trained_from: str  #: "head", the first layer that is trained, or "all"
    reads: str = ""  #: Layer whose output the head reads; empty for the last one
    forecast: AccuracyForecast  #: The accuracy that it will reach
    standard_error: float  #: Of that accuracy, from the number of scored rows alone
    #: Share of the source's parameters, its head left out, that are trained; None if they are unknown.
    trained_share: float | None
    backward_share: float  #: Share of the source's layers that the backward pass runs through


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Ways to train, what is expected of each, and which of them is recommended."""

    choices: tuple[Choice, ...]  #: From the cheapest to the most expensive
    recommended: int | None  #: Place of the recommended one; None if nothing can be told
    reason: str  #: Why this one, or why none; a sentence
    data: str  #: What a rule of thumb says of data like these
    notes: tuple[str, ...] = ()  #: What limits the advice, one sentence each

    @property
    def choice(self) -> Choice | None:
        """The recommended choice."""
        return None if self.recommended is None else self.choices[self.recommended]

    def describe(self) -> str:
        """Return the recommendation and the reason, without the table."""
        if self.choice is None:
            return f"Nothing can be recommended: {self.reason}"
        expected = f"expected accuracy {self.choice.forecast.value:.3f}"
        return f"Recommended: {self.choice.what}, {expected}. {self.reason}"

    @property
    def legend(self) -> str:
        """What the columns of the table mean."""
        return "* recommended; trained: share of the parameters; backward: share of the layers"

    def table(self) -> list[tuple[str, ...]]:
        """Return the choices as rows of text, below a row with the heads of the columns."""
        rows: list[tuple[str, ...]] = [("what to train", "accuracy", "interval", "trained", "backward")]
        for place, choice in enumerate(self.choices):
            forecast, share = choice.forecast, choice.trained_share
            what = choice.what + (" *" if place == self.recommended else "")
            expected = f"{forecast.value:.3f}", f"{forecast.low:.3f}-{forecast.high:.3f}"
            rows.append(
                (what, *expected, "unknown" if share is None else f"{share:.0%}", f"{choice.backward_share:.0%}")
            )
        return rows

    def __str__(self) -> str:
        """The table, the recommendation, the rule of thumb and the notes."""
        rows = self.table()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, self.legend, self.describe(), self.data, *(f"- {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        values: dict[str, Any] = plain(self)
        return values

    def callback(self, learning_rates: "LearningRates" = None) -> "LayerTransfer":
        """Return the :class:`~lightning_leep.LayerTransfer` that trains as recommended.

        ``ValueError`` if nothing is recommended, or a head on an earlier layer, which needs another module.
        """
        choice = self.choice
        if choice is None or choice.reads:
            found = self.describe() if choice is None else f"{choice.what}, for which the module must be built anew."
            raise ValueError(f"There is no recommendation that a callback can follow: {found}")
        from lightning_leep.layers.layer_transfer import LayerTransfer

        return LayerTransfer(None if choice.trained_from == "all" else choice.trained_from, learning_rates)


def advise(
    report: TransferabilityReport, history: Iterable[TransferRecord] | None = None, *, test_size: int | None = None
) -> Advice:
    r"""Compare ways to train a source on the data of a report, and recommend one.

    The ways are a linear head on the last features, one on the best earlier layer, training from the last stage on, and
    all layers. A stage is a row of layers under one name ("layer3.0", "layer3.1"), or the last third of them. Each has
    the forecast of :func:`~lightning_leep.forecast.forecast_accuracy`. It recommends the first whose forecast p is not
    below the best one :math:`p^*` by more than
    :math:`\max(0.005, \tfrac14 \sqrt{s^2 + s^{*2}})`, with the standard errors s of leave-one-out accuracy. The rows
    are the same, so the difference varies less than that. The best of L earlier layers was picked for its
    accuracy, so a head on it is compared at :math:`p - s \sqrt{2 \ln L}`, which takes off what luck alone may add.

    Nothing is recommended without scores of features and layers, or if no way is better than always predicting the
    largest class by two standard errors.

    Sources: the table in the notes on transfer learning of Stanford's CS231n (size and similarity of the data);
    Yosinski et al., NeurIPS 2014, on which layers transfer.

    Args:
        report: Scores of the source on the target data.
        history: Earlier transfers, which correct the forecasts.
        test_size: Rows on which the achieved accuracy will be measured; None for as many as were scored.

    Raises:
        TypeError: If ``report`` is not a report, or ``history`` is not records.
        ValueError: If ``test_size`` is not positive.
    """
    check_report(report)
    check_records(history)
    choices = _choices(report, list(history or ()), test_size)
    if not choices:
        why = "the source has no scores of features and layers; score it with `layers='auto'`."
        return Advice(choices=(), recommended=None, reason=why, data=_rule(report))
    luck = math.sqrt(2 * math.log(max(1, len(_earlier(report)))))  # in standard errors
    compared = {c.what: c.forecast.value - (luck * c.standard_error if c.reads else 0.0) for c in choices}
    best = max(choices, key=lambda choice: compared[choice.what])
    error = best.standard_error
    as_good = [
        c
        for c in choices
        if compared[best.what] - compared[c.what] <= max(MARGIN, STANDARD_ERRORS * math.hypot(error, c.standard_error))
    ]
    found: int | None = choices.index(as_good[0])
    if compared[best.what] - 2 * error <= report.largest_class_rate:
        found = None
        reason = f"none is clearly above {report.largest_class_rate:.3f}, the share of the largest class."
    elif all(choice in as_good for choice in choices if not choice.reads):
        reason = f"The ways to train cannot be told apart on {report.num_samples} rows; this is the cheapest."
    elif as_good[0] is best:
        other = "costlier way is expected to reach more" if found == 0 else "cheaper way is expected to reach as much"
        reason = f"No {other}."
    else:
        reason = f"It cannot be told from the best, {best.what} ({best.forecast.value:.3f})."
    highest = max(choices, key=lambda choice: choice.forecast.value)
    if found is not None and highest is not best and highest.reads:
        reason += f" The forecast of {highest.what} counts less: its layer was picked as the best one."
    notes = [] if report.feature_layer != LOGITS else ["The head's probe uses the logits: it is a lower bound."]
    read = {choice.reads for choice in choices}
    notes += [
        f"A head on {layer.name} may reach more: {layer.kept_width} of its {layer.width} features were scored."
        for layer in report.layers
        if layer.name in read and layer.kept_width < layer.width
    ]
    notes += sorted({note for choice in choices for note in choice.forecast.notes})
    return Advice(choices=tuple(choices), recommended=found, reason=reason, data=_rule(report), notes=tuple(notes))


def _earlier(report: TransferabilityReport) -> list[LayerScore]:
    return [layer for layer in report.layers if layer.probe_accuracy is not None and not layer.feeds_head]


def _choices(report: TransferabilityReport, history: list[TransferRecord], test_size: int | None) -> list[Choice]:
    layers = report.layers
    known = (or_nan(report.linear_probe_accuracy), or_nan(report.multi_layer_probe_accuracy))
    if not layers or not all(map(math.isfinite, known)):
        return []
    sizes = [layer.num_parameters or 0 for layer in layers]
    counted = sum(sizes) and all(layer.num_parameters is not None for layer in layers)

    def choice(what: str, trainable: str, first: int, reads: str = "", scores: Any = report) -> Choice:
        name = layers[first].name if trainable == "part" else ""
        made = forecast_accuracy(scores, history, trainable=trainable, trained_from=name, test_size=test_size)
        assert made is not None  # there is a probe
        p = made.value
        return Choice(
            what=what,
            trainable=trainable,
            trained_from=name or trainable,
            reads=reads,
            forecast=made,
            standard_error=math.sqrt(p * (1 - p) / report.num_samples),
            trained_share=sum(sizes[first:]) / sum(sizes) if counted else None,
            backward_share=1 - first / len(layers),
        )

    choices = [choice("a linear head on the last features", "head", len(layers))]
    if earlier := _earlier(report):
        best = max(earlier, key=lambda layer: or_nan(layer.probe_accuracy))
        scores = replace(report, linear_probe_accuracy=best.probe_accuracy, feature_layer=best.name)
        choices.append(choice(f"a linear head on {best.name}", "head", len(layers), best.name, scores))
    if first := _last_stage(layers):
        choices.append(choice(f"from {layers[first].name} on", "part", first))
    return [*choices, choice("all layers", "all", 0)]


def _last_stage(layers: tuple[LayerScore, ...]) -> int:
    """Place of the first layer of the last stage: the last row of layers under one name, else the last third of them.

    It is 0 if there are fewer than 3.
    """
    is_block = [layer.name not in (STEM, HEAD_INPUT) and "(run " not in layer.name for layer in layers]
    blocks = [place for place, found in enumerate(is_block) if found]
    stages = [layers[place].name.rpartition(".")[0] for place in blocks]
    if len(blocks) < 3:
        return 0
    first = stages.index(stages[-1])
    is_row = bool(stages[-1]) and set(stages[first:]) == {stages[-1]} and len(blocks) / 3 <= first < len(blocks) - 1
    return blocks[first if is_row else -(len(blocks) // 3)]


def _rule(report: TransferabilityReport) -> str:
    rows, share = report.num_samples / report.num_target_classes, explained_share(report)
    if share is None:
        return f"{rows:.0f} rows a class; how similar the data are to the source's is unknown."
    rule = RULES[rows >= MUCH_DATA, share >= SIMILAR]
    measured = f"{rows:.0f} rows a class; leave-one-out LEEP explains {share:.0%} of the labels' entropy"
    return f"{rule}, by the rule of thumb of CS231n. ({measured}.)"
