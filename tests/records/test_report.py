import dataclasses
import json
import math
import re

import pytest
import torch

from lightning_leep import TransferabilityReport
from lightning_leep.records.layers import LayerScore
from lightning_leep.records.report import check_report


@pytest.fixture
def report() -> TransferabilityReport:
    values = {f.name: 0.5 for f in dataclasses.fields(TransferabilityReport) if f.default is dataclasses.MISSING}
    values |= {"num_samples": 6, "num_target_classes": 3, "num_source_classes": 2, "class_counts": (1, 2, 3)}
    values |= {"leep": -0.5, "leave_one_out_leep": -0.6, "linear_probe_class_accuracy": (None, 0.5, 1.0)}
    return TransferabilityReport(**values, notes=("One note.",), joint=torch.ones(3, 2))


def test_json_round_trip_without_the_joint(report):
    text = report.to_json()
    assert "joint" not in json.loads(text)
    restored = TransferabilityReport.from_json(text)
    assert restored == report
    assert isinstance(restored.class_counts, tuple)
    assert restored.linear_probe_class_accuracy == (None, 0.5, 1.0)
    assert restored.largest_class_rate == 0.5
    assert isinstance(restored.num_samples, int)


def test_layers_survive_json_and_are_checked(report):
    layers = (
        LayerScore(name="stem", width=64, kept_width=16, probe_accuracy=0.5, h_score=1.5, log_me=-0.25),
        LayerScore(name="input of fc", width=8, kept_width=8, probe_standard_error=0.0, feeds_head=True),
    )
    report = dataclasses.replace(report, layers=layers, multi_layer_probe_accuracy=0.75)
    assert TransferabilityReport.from_json(report.to_json()) == report
    assert report.scalars()["multi_layer_probe_accuracy"] == 0.75
    values = report.to_dict()
    for layers, error in (
        ([{"name": "a", "width": 1}], ValueError),
        ([{"name": "a", "width": 1, "kept_width": 2}], ValueError),
        ([{"name": "a", "width": 1, "kept_width": 1, "beauty": 2}], ValueError),
        ([{"name": "a", "width": 1, "kept_width": 1, "probe_accuracy": 1.5}], ValueError),
        ([{"name": "a", "width": 1, "kept_width": True}], TypeError),
        (["stem"], TypeError),
        ("stem", TypeError),
    ):
        with pytest.raises(error, match="layers|width|probe_accuracy"):
            TransferabilityReport.from_dict(values | {"layers": layers})


def test_a_number_that_is_not_finite_becomes_null_comes_back_as_nan_and_is_no_scalar(report):
    report = dataclasses.replace(report, leep_standard_error=math.nan)
    text = report.to_json()
    assert json.loads(text)["leep_standard_error"] is None
    assert math.isnan(TransferabilityReport.from_json(text).leep_standard_error)
    scalars = report.scalars()
    assert not {"leep_standard_error", "notes", "joint", "class_counts"} & set(scalars)
    assert scalars["num_samples"] == 6
    assert all(isinstance(value, float) for value in scalars.values())
    assert report.floor == -report.label_entropy


def test_unknown_and_missing_fields_are_named_and_fields_come_by_name(report):
    with pytest.raises(ValueError, match="does not have.*'beauty'"):
        TransferabilityReport.from_dict(report.to_dict() | {"beauty": 1.0})
    values = report.to_dict()
    del values["leep"]
    with pytest.raises(ValueError, match="lacks fields.*leep"):
        TransferabilityReport.from_dict(values)
    for values in (None, [1], "leep"):
        with pytest.raises(TypeError, match="`values` must map the field names"):
            TransferabilityReport.from_dict(values)
        with pytest.raises(TypeError, match="`report` must be a TransferabilityReport"):
            check_report(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_samples", 0),
        ("num_samples", 7),  # not what the classes hold
        ("num_target_classes", 4),
        ("num_source_classes", 10**13),
        ("num_features", 0),
        ("class_counts", (1, 2)),
        ("class_counts", (-1, 4, 3)),
        ("leep", 0.5),
        ("leep", math.inf),
        ("leep", -math.inf),
        ("leave_one_out_leep", -1e9),
        ("nce", 1.0),
        ("label_entropy", -0.5),
        ("label_entropy", 1.2),  # log 3 = 1.10
        ("eep_accuracy", 1.5),
        ("linear_probe_accuracy", -0.1),
        ("linear_probe_balanced_accuracy", 1.1),
        ("linear_probe_class_accuracy", (0.5, None)),
        ("linear_probe_class_accuracy", (0.5, None, 1.5)),
        ("linear_probe_samples", -3),
        ("linear_probe_samples", 7),
        ("permutation_p_value", 2.0),
        ("seconds", -1.0),
        ("log_me", 10**400),
    ],
)
def test_values_that_scoring_never_gives_are_refused(report, name, value):
    names = "class_counts" if name in ("num_samples", "num_target_classes") else name
    with pytest.raises(ValueError, match=f"`({name}|{names})`"):
        check_report(dataclasses.replace(report, **{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_samples", None),
        ("num_samples", 6.0),
        ("num_samples", True),
        ("class_counts", 6),
        ("class_counts", ("1", "2", "3")),
        ("leep", "-0.5"),
        ("leep", True),
        ("linear_probe_samples", 2.5),
        ("linear_probe_accuracy", [0.5]),
        ("feature_layer", 3),
        ("notes", "One note."),
        ("notes", (1,)),
    ],
)
def test_types_that_reports_never_have_are_refused(report, name, value):
    with pytest.raises(TypeError, match=f"`{name}`"):
        TransferabilityReport.from_dict(report.to_dict() | {name: list(value) if isinstance(value, tuple) else value})


def test_missing_numbers_and_rounding_are_fine(report):
    for values in ({"leep": math.nan}, {"leep": 1e-9}, {"eep_accuracy": math.nan}, {"log_me": -math.inf}):
        check_report(dataclasses.replace(report, **values))
    check_report(dataclasses.replace(report, linear_probe_samples=0, label_entropy=math.log(3) + 1e-9))


def test_text_has_five_numbers_and_the_notes(report):
    noted = dataclasses.replace(report, notes=("One.", "Two."), permutation_p_value=0.25)
    text = str(noted)
    assert text.endswith("- One.\n- Two.")
    numbers = dict(
        re.findall(
            r"^(LEEP|leave-one-out LEEP|EEP accuracy|linear probe accuracy|permutation p-value) +(\S+)", text, re.M
        )
    )
    shown = ("leep", "leave_one_out_leep", "eep_accuracy", "linear_probe_accuracy", "permutation_p_value")
    wanted = [value for name in shown if (value := getattr(noted, name)) is not None and math.isfinite(value)]
    assert [float(value) for value in numbers.values()] == pytest.approx(wanted, abs=5e-4)
    assert len(text.splitlines()) == 1 + len(wanted) + 2


def test_description_has_every_number(report):
    described = report.describe()
    for name, value in report.scalars().items():
        assert re.search(rf"^{name} +{re.escape(f'{value:.6g}')}$", described, re.M), name
    assert not re.search(r"None| -$", described, re.M)  # fields without a value are left out
