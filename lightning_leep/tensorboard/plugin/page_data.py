"""What the page shows, as plain data for JSON: made from records alone."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_leep.forecast.accuracy import forecast_accuracy
from lightning_leep.forecast.mean_curve import LEEPLevel, MeanCurve, leep_levels, with_references
from lightning_leep.records.accuracy_forecast import AccuracyForecast
from lightning_leep.records.curve import AccuracyCurve
from lightning_leep.records.ranking import Ranking
from lightning_leep.records.transfer import RunningPoint, TransferRecord
from lightning_leep.utils.checks import plain, printable

#: Points of a curve, and layers, that the page gets of a transfer. Of many transfers it gets fewer of each, so that a
#: page of a thousand has less than 2 MB.
MOST_POINTS, FEWEST_POINTS, ALL_POINTS = 60, 4, 8_000
#: The same of a run that is under way, which writes them again and again.
SO_FAR_POINTS = 40
#: What the page shows of a record under the same name.
RECORD_FIELDS = ("trainable", "trained_from", "recommended", "complete", "achieved")
SETTINGS = ("test_size", "optimizer", "learning_rate")
#: Bytes of P(y|z) that a page has; the newest transfers have theirs.
ASSOCIATION_BYTES = 300_000


def page_data(
    records: Iterable[TransferRecord],
    rankings: Iterable[Ranking] = (),
    more: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return everything that the page shows of records in any order, and of rankings of sources.

    ``more`` is what else is known of each record, say the run that it comes from. Sentences and names that occur often
    stand in ``texts`` once, and are referred to by index. What is not printable is escaped: a name could turn the text
    after it.
    """
    history = with_references(records)
    extras = more or [{}] * len(history)
    points = min(MOST_POINTS, max(FEWEST_POINTS, ALL_POINTS // max(len(history), 1)))
    texts: dict[str, int] = {}
    pairs = [
        (record, {**transfer_data(record, texts, points), **extra})
        for record, extra in zip(history, extras, strict=True)
    ]
    free = ASSOCIATION_BYTES
    for record, transfer in sorted(pairs, key=lambda pair: pair[0].created, reverse=True):
        if (association := record.association) is not None:
            shown = plain(association) if free >= 0 else None
            free -= len(json.dumps(shown))
            transfer["association"] = shown if free >= 0 else "left out"
    content = {
        "transfers": [transfer for _, transfer in pairs],
        "levels": levels_data(history),
        "rankings": [ranking.to_dict() for ranking in rankings],
        "texts": list(texts),
    }
    found: dict[str, Any] = clean(content)
    return found


def transfer_data(record: TransferRecord, texts: dict[str, int], points: int) -> dict[str, Any]:
    """What the page shows of one transfer; accuracies in 0..1, LEEP in nats, times in epochs trained.

    ``texts`` are the sentences and names so far, each with its index.
    """

    def place(text: str) -> int:
        return texts.setdefault(text, len(texts))

    report, curve, reference = record.report, record.curve, record.reference
    forecast = record.forecast or _forecast_again(record)
    notes = dict.fromkeys((*report.notes, *(forecast.notes if forecast else ())))
    layers = [layer for layer in report.layers if layer.probe_accuracy is not None]
    marked = (record.recommended, record.trained_from)
    special = [i for i, layer in enumerate(layers) if layer.feeds_head or layer.name in marked]
    return {
        "source": record.source_name,
        "target": record.target_name,
        "date": record.created,
        **{name: getattr(record, name) for name in (*RECORD_FIELDS, *SETTINGS)},
        **{name: getattr(report, name) for name in ("leep", "leave_one_out_leep", "floor")},
        "probe": report.linear_probe_accuracy,
        "together": report.multi_layer_probe_accuracy,
        "rows": report.num_samples,
        "classes": report.num_target_classes,
        "seconds": record.wall_seconds[-1] if record.wall_seconds else None,
        "forecast": None
        if forecast is None
        else {
            **{name: getattr(forecast, name) for name in ("value", "low", "high", "coverage")},
            "basis": place(forecast.basis),
            "made_again": record.forecast is None,
        },
        "epochs": curve.epochs[-1] if len(curve) else None,
        "to90": curve.epochs_to(0.9),
        "curve": _curve_data(curve, points),
        "reference": _curve_data(reference, points) if isinstance(reference, AccuracyCurve) else reference,
        "running": [record.running[i] for i in thinned(len(record.running), points)],
        "layers": [
            [place(layer.name), layer.probe_accuracy, layer.probe_standard_error, layer.feeds_head]
            for layer in (layers[i] for i in thinned(len(layers), points, special))
        ],
        "notes": [place(note) for note in notes],
    }


def so_far_data(curve: AccuracyCurve, running: Sequence[RunningPoint]) -> dict[str, Any]:
    """What changes of a transfer while it is under way, in at most 3 kB; the fields are those of its record."""
    epochs, accuracy = _curve_data(curve, SO_FAR_POINTS)
    points = [running[i] for i in thinned(len(running), SO_FAR_POINTS)]
    found: dict[str, Any] = clean({"curve": {"epochs": epochs, "accuracy": accuracy}, "running": points})
    return found


def levels_data(history: Sequence[TransferRecord]) -> list[dict[str, Any]]:
    """Mean curves by level of LEEP, for each part that was trained."""
    result = []
    for trainable in dict.fromkeys(record.trainable for record in history if record.trainable != "scratch"):
        # Those from scratch are the references of the others.
        records = [record for record in history if record.trainable in (trainable, "scratch")]
        levels = leep_levels(records, levels=None)
        if any(level.accuracy is not None for level in levels):
            result.append({"trainable": trainable, "levels": [_level_data(level) for level in levels]})
    return result


def thinned(count: int, most: int, kept: Iterable[int] = ()) -> list[int]:
    """At most ``most`` places out of ``count``, evenly spread with the first and the last, and the ``kept`` ones."""
    if count <= most:
        return list(range(count))
    return sorted({*(round(i * (count - 1) / (most - 1)) for i in range(most)), *kept})


def clean(value: Any) -> Any:
    """The same plain value: numbers with five digits, None for those that JSON lacks, texts that can be printed."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, str):
        return value if value.isprintable() else printable(value)
    if isinstance(value, Mapping):
        return {clean(name): clean(item) for name, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, list | tuple) else value


def _forecast_again(record: TransferRecord) -> AccuracyForecast | None:
    """The forecast that the scores alone give, for a record that was written without one."""
    try:
        return forecast_accuracy(
            record.report, trainable=record.trainable, trained_from=record.trained_from, test_size=record.test_size
        )
    except ValueError:  # the report has no such layer
        return None


def _curve_data(curve: AccuracyCurve, points: int) -> list[list[float]]:
    best = [curve.accuracy.index(curve.best)] if len(curve) else []
    places = thinned(len(curve), points, best)
    return [[curve.epochs[i] for i in places], [curve.accuracy[i] for i in places]]


def _level_data(level: LEEPLevel) -> dict[str, Any]:
    means = {"accuracy": _mean_data(level.accuracy), "difference": _mean_data(level.difference)}
    return {"low": level.low, "high": level.high, "count": len(level.records), **means}


def _mean_data(mean: MeanCurve | None) -> list[list[float]] | None:
    if mean is None:
        return None
    places = thinned(len(mean.epochs), MOST_POINTS)
    return [[values[i] for i in places] for values in (mean.epochs, mean.mean, mean.low, mean.high)]
