"""Which records are runs of one transfer, and which of them a forecast may rest on."""

import dataclasses
import math

import numpy as np
import pytest

from lightning_leep.forecast.repeats import distinct_transfers, exchangeable_records, is_same_transfer
from tests._helpers.simulated_transfers import make_record, make_report, simulate_history


@pytest.mark.parametrize("name", ["leep", "leave_one_out_leep", "linear_probe_accuracy"])
def test_scores_have_to_agree_to_three_digits(name):
    report = make_report(leep=-0.7, leave_one_out_leep=-0.8)
    value = getattr(report, name)
    assert is_same_transfer(report, dataclasses.replace(report, **{name: value + 0.0009}))
    assert not is_same_transfer(report, dataclasses.replace(report, **{name: value - 0.002}))
    missing = dataclasses.replace(report, **{name: math.nan})
    assert is_same_transfer(missing, missing)
    assert not is_same_transfer(missing, report)
    assert not is_same_transfer(report, missing)


@pytest.mark.parametrize(
    "change",
    [
        {"num_samples": 251, "class_counts": (51, 50, 50, 50, 50)},
        {"class_counts": (49, 51, 50, 50, 50)},
        {"num_target_classes": 6, "class_counts": (50, 50, 50, 50, 50, 0)},
        {"num_source_classes": 11},
    ],
)
def test_rows_have_to_be_the_same(change):
    assert is_same_transfer(make_report(), make_report(seconds=9.0, leep_standard_error=0.3))
    assert not is_same_transfer(make_report(), dataclasses.replace(make_report(), **change))


def test_other_data_source_or_training_is_another_transfer():
    records = [
        make_record(target_name="a", source_name="m"),
        make_record(target_name="b", source_name="m"),
        make_record(target_name="a", source_name="n"),
        make_record(target_name="a", source_name="m", trainable="all"),
    ]
    assert len(distinct_transfers(records * 3)) == 4
    # Draws of 5 classes x 50 images share everything but their scores.
    assert len(distinct_transfers(simulate_history(np.random.default_rng(0), 60, shape=(5, 50)))) >= 59


def test_the_latest_run_stands_for_all_whatever_their_order():
    """By time, not by text: 12:00 five hours east of Greenwich is 07:00 there."""
    noon_east = make_record(0.1, created="2026-03-05T12:00:00+05:00")
    eight = make_record(0.2, created="2026-03-05T08:00:00+00:00")
    before = make_record(0.3, created="2026-03-04")
    for records in ([noon_east, eight, before], [before, eight, noon_east]):
        assert distinct_transfers(records) == [eight]
    other = make_record(0.4, report=make_report(probe=0.8), created="2026-03-01")
    assert distinct_transfers([eight, other, before]) == [other, eight]


def test_own_runs_alone_if_there_are_enough():
    own, others = [make_record(i / 10) for i in range(6)], simulate_history(np.random.default_rng(0), 8, runs=2)
    assert exchangeable_records(make_report(), own + others, 6) == (own, True)
    records, same = exchangeable_records(make_report(), own + others, 7)
    assert not same
    assert len(records) == 9
    assert exchangeable_records(make_report(), [], 1) == ([], False)
