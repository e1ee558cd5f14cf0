import dataclasses
import json
import math

import pytest
import torch

from lightning_leep import TransferabilityReport


@pytest.fixture
def report() -> TransferabilityReport:
    values = {f.name: 0.5 for f in dataclasses.fields(TransferabilityReport) if f.default is dataclasses.MISSING}
    values |= {"num_samples": 6, "num_target_classes": 3, "num_source_classes": 2, "class_counts": (1, 2, 3)}
    return TransferabilityReport(**values, notes=("One note.",), joint=torch.ones(3, 2))


def test_frozen(report):
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.leep = 0.0


def test_json_round_trip_without_the_joint(report):
    text = report.to_json()
    assert "joint" not in json.loads(text)
    restored = TransferabilityReport.from_json(text)
    assert restored == report
    assert isinstance(restored.class_counts, tuple)
    assert isinstance(restored.num_samples, int)


def test_a_number_that_is_not_finite_becomes_null_and_comes_back_as_nan(report):
    report = dataclasses.replace(report, leep_standard_error=math.nan)
    text = report.to_json()
    assert json.loads(text)["leep_standard_error"] is None
    assert math.isnan(TransferabilityReport.from_json(text).leep_standard_error)
    assert "leep_standard_error" not in report.scalars()


def test_scalars_are_the_finite_numbers(report):
    scalars = report.scalars()
    assert scalars["num_samples"] == 6
    assert all(isinstance(value, float) for value in scalars.values())
    assert not {"notes", "joint", "class_counts"} & set(scalars)


def test_floor_is_minus_the_label_entropy(report):
    assert report.floor == -report.label_entropy


def test_unknown_and_missing_fields_are_named(report):
    with pytest.raises(ValueError, match="does not have.*'beauty'"):
        TransferabilityReport.from_dict(report.to_dict() | {"beauty": 1.0})
    values = report.to_dict()
    del values["leep"]
    with pytest.raises(ValueError, match="lacks fields.*leep"):
        TransferabilityReport.from_dict(values)
