"""The text panel: what was scored, predicted and achieved, for a reader who has never heard of LEEP."""

from math import isfinite

from lightning_leep.forecast.accuracy import AccuracyForecast
from lightning_leep.forecast.convergence import ConvergenceForecast
from lightning_leep.layers.advice import Advice
from lightning_leep.records.curve import AccuracyCurve, Reference, best_accuracy
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.records.report_notes import doubts, explained_share
from lightning_leep.tensorboard.words import code, epochs, escaped, percent

#: Two-sided 95% of a normal distribution, in standard errors.
NORMAL_95 = 1.96
#: Rows of the table of scores: by its name in the report the title of a score, and what it means.
SCORES = {
    "leep": ("LEEP", "mean log-probability of the right label, given only the source's outputs; 0 is perfect"),
    "leave_one_out_leep": (
        "LEEP, leave-one-out",
        "the same with each sample predicted from the others, as for new data",
    ),
    "floor": ("floor", "LEEP of a source that says nothing: minus the entropy of the labels"),
    "leave_one_out_floor": (
        "floor, leave-one-out",
        "the same without classes of a single sample, which leave-one-out LEEP leaves out",
    ),
    "eep_accuracy": (
        "EEP accuracy",
        "share of labels that LEEP's own predictor gets right, without any training; usually a lower bound",
    ),
    "linear_probe_accuracy": (
        "linear probe accuracy",
        "a linear classifier on the source's features, leave-one-out; forecasts a re-trained head",
    ),
    "nce": ("NCE", "LEEP with only the most probable source class of each sample"),
    "nleep": ("N-LEEP", "LEEP with clusters of features in place of source classes"),
    "h_score": ("H-score", "distance of the classes in feature space relative to their spread; 0 or more"),
    "log_me": ("LogME", "log evidence of a linear model on the features; compares sources on the same data only"),
}


def report_markdown(
    report: TransferabilityReport,
    forecast: AccuracyForecast | None = None,
    curve: AccuracyCurve | None = None,
    reference: Reference | None = None,
    source_name: str | None = None,
    convergence: ConvergenceForecast | None = None,
    stopped: str = "",
) -> str:
    """One transfer in Markdown: what was scored, predicted and achieved, the notes, and a table of the scores.

    ``forecast`` and ``convergence`` were made before training, ``curve`` is the accuracy per validation, ``reference``
    a curve or final accuracy to compare with, ``stopped`` a sentence that says why training was stopped early.
    """
    curve = curve if curve is not None else AccuracyCurve()
    source = "the source model" if source_name is None else code(source_name)
    parts = [
        f"## How well does {source} transfer?",
        _scoring(report, source),
        _verdict(report),
        _prediction(forecast, convergence),
        _outcome(curve, forecast),
        f"**Stopped.** {escaped(stopped)}" if stopped else "",
        _comparison(curve, reference),
        _notes((*report.notes, *(forecast.notes if forecast is not None else ()))),
        _table(report),
        _layers(report),
    ]
    return "\n\n".join(part for part in parts if part)


def advice_markdown(advice: Advice) -> str:
    """What to train, in Markdown: the recommendation, the ways to train in a table, the rule of thumb and the notes."""
    head, *rows = advice.table()
    lines = [" | ".join(map(escaped, row)) for row in rows]
    table = "\n".join(f"| {line} |" for line in (" | ".join(head), " | ".join("---" for _ in head), *lines))
    said = escaped(advice.legend), escaped(advice.data), _notes(advice.notes)
    parts = ("## What to train", f"**{escaped(advice.describe())}**", table, *said)
    return "\n\n".join(part for part in parts if part)


def _scoring(report: TransferabilityReport, source: str) -> str:
    classes = "without a head" if report.num_source_classes is None else f"{report.num_source_classes:,} classes"
    return (
        f"Before training, {source} ({classes}) was run once over "
        f"**{report.num_samples:,} samples of {report.num_target_classes:,} target classes** "
        f"({report.seconds:.1f} s, {report.samples_per_second:,.0f} samples a second). No weight was changed."
    )


def _verdict(report: TransferabilityReport) -> str:
    if report.leep is None:
        return "The source has no head, so there is no LEEP: its features are scored."
    text = (
        f"**LEEP {report.leep:.3f}**, on a scale from {report.floor:.3f} (the source says nothing about the labels) "
        "to 0 (it says everything)."
    )
    share = explained_share(report)
    if share is not None:
        text += f" Predicting each sample from the others alone, it is {report.leave_one_out_leep:.3f}"
        if doubts(report):
            text += f"; a source that says nothing would have {report.leave_one_out_floor:.3f}."
        else:
            text += f", so the source explains **{percent(share)} of the label information**."
    return text


def _notes(notes: tuple[str, ...]) -> str:
    return "\n".join(["**Read with care:**", "", *(f"- {escaped(note)}" for note in notes)]) if notes else ""


def _prediction(forecast: AccuracyForecast | None, convergence: ConvergenceForecast | None) -> str:
    sentences = []
    if forecast is not None:
        sentences.append(f"**Predicted accuracy: {percent(forecast.value)}.** {escaped(forecast.describe())}")
    if convergence is not None:
        sentences.append(escaped(convergence.describe()))
    return " ".join(sentences)


def _outcome(curve: AccuracyCurve, forecast: AccuracyForecast | None) -> str:
    if not len(curve):
        return ""
    at_best = curve.epochs_to(1.0) or 0.0
    text = f"**Best accuracy: {percent(curve.best)}**, after {epochs(at_best)}"
    if curve.epochs[-1] > at_best:
        text += f" ({percent(curve.final)} after {epochs(curve.epochs[-1])})"
    if forecast is not None:
        points = 100 * (curve.best - forecast.value)
        side = "above" if points >= 0 else "below"
        place = "inside" if forecast.low <= curve.best <= forecast.high else "outside"
        text += f": {abs(points):.1f} points {side} the prediction, {place} its interval"
        reached = curve.epoch_reaching(forecast.value)
        text += "; the prediction was " + ("not reached" if reached is None else f"reached after {epochs(reached)}")
    steps = [f"{share}% after {epochs(curve.epochs_to(share / 100) or 0)}" for share in (50, 90, 99)]
    return f"{text}. Of its best accuracy it reached {steps[0]}, {steps[1]} and {steps[2]}."


def _comparison(curve: AccuracyCurve, reference: Reference | None) -> str:
    best = None if reference is None else best_accuracy(reference)
    if reference is None or best is None or not len(curve):
        return ""
    passed, reached = curve.epoch_passing(reference), curve.epoch_reaching(best)
    text = f"The reference reached {percent(best)} at best. This run "
    text += "was never above it" if passed is None else f"was above it first after {epochs(passed)}"
    text += " and did not reach that best." if reached is None else f" and reached that best after {epochs(reached)}."
    return text


def _table(report: TransferabilityReport) -> str:
    lines = ["| score | value (± 95%) | what it means |", "|---|---|---|"]
    for name, (title, meaning) in SCORES.items():
        value, error = getattr(report, name), getattr(report, f"{name}_standard_error", None)
        if value is None or (report.leep is None and "floor" in name):
            continue
        if name == "leave_one_out_floor" and not (1 in report.class_counts and isfinite(value)):
            continue
        shown = _accuracy(value, error) if name.endswith("accuracy") else _score(value, error)
        lines.append(f"| {title} | {shown} | {meaning} |")
    return "\n".join(lines)


def _layers(report: TransferabilityReport) -> str:
    if not report.layers:
        return ""
    rows = ["| layer | features | linear probe accuracy | H-score | LogME |", "|---|---|---|---|---|"]
    for layer in report.layers:
        width = str(layer.width) if layer.width == layer.kept_width else f"{layer.kept_width} of {layer.width}"
        value = layer.probe_accuracy
        accuracy = "-" if value is None else _accuracy(value, layer.probe_standard_error)
        others = ("-" if score is None else f"{score:.3f}" for score in (layer.h_score, layer.log_me))
        name = code(layer.name) + (" (goes into the head)" if layer.feeds_head else "")
        rows.append(f"| {name} | {width} | {accuracy} | {' | '.join(others)} |")
    if (value := report.multi_layer_probe_accuracy) is not None:
        total = sum(layer.kept_width for layer in report.layers)
        rows.append(f"| all together | {total} | {_accuracy(value, report.multi_layer_probe_standard_error)} | - | - |")
    return "\n".join(["**Layers of the source**, in the order in which they run:", "", *rows])


def _score(value: float, error: float | None) -> str:
    return f"{value:.3f}" + ("" if error is None or not isfinite(error) else f" ± {NORMAL_95 * error:.3f}")


def _accuracy(value: float, error: float | None) -> str:
    return percent(value) + ("" if error is None or not isfinite(error) else f" ± {percent(NORMAL_95 * error)}")
