"""Transfers made up for the tests: reports with every required field, and records around them."""

import dataclasses
import math
from datetime import datetime, timedelta

import numpy as np

from lightning_leep.records.curve import AccuracyCurve
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.records.transfer import TransferRecord

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


def make_record(achieved: float = 0.7, trainable: str = "head", report=None, curve=None, **values) -> TransferRecord:
    return TransferRecord(
        report=report or make_report(),
        curve=AccuracyCurve((1,), (achieved,)) if curve is None else curve,
        trainable=trainable,
        **{"versions": {}, "created": CREATED, **values},
    )


def simulate_history(
    rng: np.random.Generator,
    size: int,
    bias: float = 0.0,
    test_size: int = 500,
    runs: int = 1,
    model_error: float = 0.0,
    run_error: float = 0.05,
    shape: tuple[int, int] | None = None,
) -> list[TransferRecord]:
    """Exchangeable transfers, a minute apart: a true accuracy each, and a probe and a test that sample it.

    Args:
        rng: Source of all draws.
        size: Number of transfers.
        bias: Logits between probe and trained network.
        test_size: Rows of a test.
        runs: Records of each transfer, with one report.
        model_error: Standard deviation of what is added to ``bias`` for each transfer.
        run_error: Standard deviation of what is added for each run, if there is more than one.
        shape: Classes and rows of each; at random if None.
    """
    records = []
    for _ in range(size):
        classes, rows_per_class = shape or (int(rng.integers(2, 40)), int(np.exp(rng.uniform(3, 5))))
        truth, rows = rng.uniform(0.3, 0.95), classes * rows_per_class
        leep = -(1 - 0.8 * truth) * math.log(classes) * rng.uniform(0.8, 1)
        scores = {"leep": leep, "leave_one_out_leep": leep * 1.1}
        report = make_report(classes, rows_per_class, probe=rng.binomial(rows, truth) / rows, **scores)
        shift = math.log(truth / (1 - truth)) + bias + model_error * rng.normal()
        for _ in range(runs):
            trained = 1 / (1 + math.exp(-shift - (run_error * rng.normal() if runs > 1 else 0)))
            achieved = rng.binomial(test_size, trained) / test_size
            created = (datetime.fromisoformat(CREATED) + timedelta(minutes=len(records))).isoformat()
            records.append(make_record(achieved, report=report, test_size=test_size, created=created))
    return records
