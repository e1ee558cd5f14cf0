"""Files changed at random: each is left out, or is a record from which every forecast can be made."""

import json
import math
import random
import warnings
from typing import Any

import numpy as np
import pytest

from lightning_leep.cli import lines
from lightning_leep.forecast import forecast_accuracy, forecast_convergence, leep_levels
from lightning_leep.records import AccuracyCurve, History, TransferRecord, load_history
from tests._helpers.simulated_transfers import make_record, make_report, simulate_history

CURVE = AccuracyCurve((1, 2, 3), (0.4, 0.6, 0.7))
EXTRA = {"linear_probe_samples": 200, "nce": -1.0, "feature_layer": "fc", "notes": ("Few rows.",)}
RECORDS = [
    make_record(
        curve=CURVE,
        reference=AccuracyCurve((1, 2, 3), (0.2, 0.3, 0.4)),
        wall_seconds=(1, 2, 3),
        report=make_report(**EXTRA),
        test_size=500,
        target_name="pets",
        learning_rate=0.1,
        versions={"torch": "1"},
    ),
    make_record(curve=CURVE, reference=0.3, target_name="pets"),
    make_record(curve=CURVE, trainable="scratch", target_name="pets"),
]
TEXTS = [record.to_json() for record in RECORDS]
OTHERS = simulate_history(np.random.default_rng(0), 10)
VALUES = (None, True, False, -1, 0, 1, 2, 0.5, -0.5, 745, -745, 5e-324, 1e308, -1e308, math.inf, math.nan)
VALUES += (10**12, 2**53, 10**25, "", "x", "0.5", "0001-01-01", "9999-12-31T23:59:59-10:00", "\ud800\n\x1b[31m")
VALUES += ([], [0.5], ["a"], {}, {"a": 1})


def paths(value: Any, path: tuple = ()) -> list[tuple]:
    """Path of everything in nested lists and dictionaries."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, child in inner for p in paths(child, (*path, key)))]


def with_other_values(rng: random.Random, text: str) -> str:
    values = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2))):
        *path, last = rng.choice(paths(values)[1:])
        inner = values
        for key in path:
            inner = inner[key]
        inner[last] = json.loads(json.dumps(rng.choice(VALUES)))
    return json.dumps(values)


def with_other_bytes(rng: random.Random, text: str) -> bytes:
    content = bytearray(text.encode())
    for _ in range(rng.choice((1, 1, 3))):
        digits = [i for i, byte in enumerate(content) if byte in b"0123456789-."]
        place = rng.choice((rng.choice(digits), rng.randrange(len(content))))  # half of them in a number
        content[place] = rng.choice((*b'0123456789"{}[],:x-\\\n', rng.randrange(256)))
    return bytes(content[: rng.randrange(len(content))] if rng.random() < 0.2 else content)


def check_forecast(forecast) -> None:
    assert forecast is None or 0 <= forecast.low <= forecast.value <= forecast.high <= 1


def check_use(record: TransferRecord) -> None:
    history = History([record, *OTHERS])
    assert [TransferRecord.from_json(r.to_json()) for r in history[:1]]
    for report in (make_report(), make_report(probe=None)):
        for trainable in {"head", "scratch", record.trainable}:
            check_forecast(forecast_accuracy(report, history, trainable=trainable))
            check_forecast(forecast_accuracy(report, [record] * 9, trainable=trainable))
            forecast_convergence(report, [record] * 6, trainable=trainable)
    check_forecast(forecast_accuracy(record.report, OTHERS))
    leep_levels(history)
    assert len(list(lines(history))) == 1 + len(history)
    assert len(history.to_dicts()) == len(history)


@pytest.mark.slow
@pytest.mark.parametrize("change", [with_other_values, with_other_bytes])
def test_whatever_is_read_can_be_used(change, tmp_path):
    num_files = 60
    for seed in range(num_files):
        rng = random.Random(seed)
        content = change(rng, rng.choice(TEXTS))
        (tmp_path / f"{seed:03}.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.warns(UserWarning, match="Left out") as caught:
        history = load_history(tmp_path)
    assert len(caught) == 1
    assert str(caught[0].message).count(".json (") == num_files - len(history)
    changed = {record.to_json(): record for record in history if record not in RECORDS}
    assert changed
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # overflow and the like
        for record in changed.values():
            check_use(record)


@pytest.mark.slow
def test_the_largest_and_smallest_of_everything():
    scores = {"leep": (0.0, -745.0, math.nan), "eep_accuracy": (0.0, 1.0), "linear_probe_accuracy": (0.0, 1.0, None)}
    for seed in range(30):
        rng = random.Random(seed)
        counts = tuple(rng.choice((0, 1, 5, 10**9)) for _ in range(rng.choice((1, 2, 300))))
        if not sum(counts):
            continue
        values = {name: rng.choice(choices) for name, choices in scores.items()}
        report = make_report(
            num_samples=sum(counts),
            num_target_classes=len(counts),
            class_counts=counts,
            leave_one_out_leep=rng.choice(scores["leep"]),
            label_entropy=rng.choice((0.0, math.log(len(counts)), math.nan)),
            linear_probe_samples=rng.choice((None, 0, 1, sum(counts))),
            **{"probe" if name == "linear_probe_accuracy" else name: value for name, value in values.items()},
        )
        curve = AccuracyCurve((0, 5e-324, 2.0**53 - 1), tuple(rng.choice((0.0, 5e-324, 1.0)) for _ in range(3)))
        check_use(make_record(report=report, curve=curve, test_size=rng.choice((None, 1, 10**12))))
