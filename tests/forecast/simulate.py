"""Transfers made up for the tests: reports with every required field, and records around them."""

import dataclasses
import math

import numpy as np

from lightning_leep.forecast.curve import AccuracyCurve
from lightning_leep.forecast.record import TransferRecord
from lightning_leep.report import TransferabilityReport

CREATED = "2026-01-02T03:04:05.000006+00:00"


def make_report(num_classes: int = 5, rows_per_class: int = 50, probe: float | None = 0.7, **values):
    """A report of balanced data; whatever is not given is a plain number."""
    required = {f.name: 0.5 for f in dataclasses.fields(TransferabilityReport) if f.default is dataclasses.MISSING}
    required |= {
        "num_samples": num_classes * rows_per_class,
        "num_target_classes": num_classes,
        "num_source_classes": 10,
        "class_counts": (rows_per_class,) * num_classes,
        "label_entropy": math.log(num_classes),
        "leep": -0.7 * math.log(num_classes),
        "leave_one_out_leep": -0.75 * math.log(num_classes),
        "eep_accuracy": 0.5,
    }
    return TransferabilityReport(**{**required, "linear_probe_accuracy": probe, **values})


def make_record(achieved: float = 0.7, strategy: str = "head", report=None, curve=None, **values) -> TransferRecord:
    return TransferRecord(
        report=report or make_report(),
        curve=AccuracyCurve((1,), (achieved,)) if curve is None else curve,
        strategy=strategy,
        **{"versions": {}, "created": CREATED, **values},
    )


def simulate_history(
    rng: np.random.Generator, size: int, bias: float = 0.0, test_size: int = 500
) -> list[TransferRecord]:
    """Exchangeable transfers: a true accuracy each, a probe and a test that sample it, ``bias`` logits between them."""
    records = []
    for _ in range(size):
        num_classes, rows_per_class = int(rng.integers(2, 40)), int(np.exp(rng.uniform(3, 5)))
        truth = rng.uniform(0.3, 0.95)
        trained = 1 / (1 + math.exp(-(math.log(truth / (1 - truth)) + bias)))
        rows = num_classes * rows_per_class
        report = make_report(num_classes, rows_per_class, probe=rng.binomial(rows, truth) / rows)
        records.append(make_record(rng.binomial(test_size, trained) / test_size, report=report, test_size=test_size))
    return records
