"""A record: what it refuses, and that its JSON form brings everything back."""

import json
import math
from dataclasses import FrozenInstanceError, fields

import pytest

from lightning_leep.records.accuracy_forecast import AccuracyForecast
from lightning_leep.records.curve import AccuracyCurve
from lightning_leep.records.transfer import SCHEMA_VERSION, TransferRecord, library_versions
from tests._helpers.simulated_transfers import make_record, make_report
from tests.records.test_ranking import FULL

CURVE = AccuracyCurve((1, 2, 3), (0.4, 0.8, 0.75))
FORECAST = AccuracyForecast(
    value=0.7, low=0.6, high=0.8, coverage=0.9, trainable="head", basis="9 rows", notes=("a",)
).to_dict()


@pytest.mark.parametrize("reference", [None, 0.3, AccuracyCurve((1, 2), (0.1, 0.2))])
def test_json_round_trip(reference):
    record = make_record(
        curve=CURVE,
        reference=reference,
        wall_seconds=(0.5, 2.5, 2.5),
        test_size=500,
        optimizer="SGD",
        learning_rate=0.1,
        target_name="pets",
        source_name="resnet",
        versions={"torch": "1"},
        complete=False,
        forecast=AccuracyForecast.from_dict(FORECAST),
        running=((0.5, 0.7, 0.0, 0.8), (2.5, 0.75, 0.7, 1.0)),
        ranking=FULL,
        order_held="It held.",
        trained_from="layer2.0",
    )
    assert TransferRecord.from_json(record.to_json()) == record
    assert TransferRecord.from_json(record.to_json().encode()) == record
    for part in (record, record.report, record.curve, record.forecast, record.ranking, record.ranking.sources[0]):
        with pytest.raises(FrozenInstanceError):  # a part may be shared between records
            setattr(part, fields(part)[0].name, None)


def test_numbers_that_are_not_finite_survive_as_missing():
    record = make_record(report=make_report(leep=math.nan), learning_rate=math.inf)
    restored = TransferRecord.from_json(record.to_json())
    assert math.isnan(restored.report.leep)
    assert restored.learning_rate is None


def test_ranking_is_kept_without_what_explains_it():
    record = make_record(ranking=FULL, source_name="third")
    assert record.rank == 3
    assert make_record(ranking=FULL, source_name="a stranger").rank is None
    assert make_record(source_name="third").rank is None
    kept = record.to_dict()["ranking"]
    forecasts = FULL.to_dict()["sources"][1]["forecasts"]
    assert kept["sources"][1] == {
        **{"name": "tied", "rank": 1, "tied_with_best": True, "forecasts": forecasts, "notes": []}
    }
    assert (kept["by"], kept["target"], len(kept["sources"])) == ("head", "pets", 4)


def test_defaults_say_when_and_with_what():
    first, second = (TransferRecord(report=make_report(), curve=CURVE, trainable="all") for _ in range(2))
    assert first.created <= second.created
    assert first.versions == library_versions()
    assert {"python", "torch"} <= set(first.versions)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainable": ""}, "`trainable` must not be empty"),
        ({"test_size": 0}, "`test_size`"),
        ({"reference": 7}, "`reference` must lie in 0..1, got 7"),
        ({"reference": math.nan}, "`reference`"),
        ({"learning_rate": 10**400}, "`learning_rate`"),
        ({"running": ((1, 0.5, 0.6, 0.8),)}, "`running` must hold .* inside its interval"),
        ({"running": ((1, 0.5, 0.4),)}, "`running`"),
        ({"wall_seconds": (1.0,)}, "`wall_seconds`"),
        ({"wall_seconds": (1.0, 3.0, 2.0)}, "`wall_seconds`"),
        ({"wall_seconds": (-1.0, 1.0, 2.0)}, "`wall_seconds`"),
        ({"wall_seconds": (1.0, 2.0, math.inf)}, "`wall_seconds`"),
        ({"created": "yesterday"}, "`created`.*yesterday"),
        ({"created": "0001-01-01T00:00:00+05:00"}, "`created`"),  # a year before the first
        ({"report": make_report(linear_probe_accuracy=1.5)}, "`linear_probe_accuracy`"),
    ],
)
def test_invalid_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        make_record(curve=CURVE, **values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("report", {"leep": -1.0}),
        ("curve", (0.5, 0.6)),
        ("forecast", 0.5),
        ("running", 0.5),
        ("trainable", 3),
        ("test_size", True),
        ("test_size", 500.0),
        ("reference", "0.5"),
        ("learning_rate", "0.1"),
        ("optimizer", None),
        ("recommended", None),
        ("trained_from", 3),
        ("ranking", {"a": 1}),
        ("order_held", None),
        ("target_name", ["a"]),
        ("source_name", {}),
        ("complete", "no"),
        ("complete", 1),
        ("versions", {"torch": 2}),
        ("versions", ["torch"]),
        ("wall_seconds", "123"),
        ("created", None),
    ],
)
def test_wrong_types_are_named(name, value):
    values = {"report": make_report(), "curve": CURVE, "trainable": "head", name: value}
    with pytest.raises(TypeError, match=f"`{name}` must"):
        TransferRecord(**values)


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00", "9999-12-31T23:59:59", "2026-01-02", "20260102T0304Z"])
def test_every_time_becomes_one_of_the_same_form(created):
    record = make_record(created=created)
    assert len(record.created) == len("2026-01-02T03:04:05.000006+00:00")
    assert record.created.endswith("+00:00")
    assert TransferRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("format"), "not a record"),
        (lambda v: v.update(schema_version=SCHEMA_VERSION + 1), "newer version"),
        (lambda v: v.update(schema_version=True), "newer version"),
        (lambda v: v.update(schema_version=0), "newer version"),
        (lambda v: v.update(colour="red"), "unknown fields.*colour"),
        (lambda v: v["report"].update(new_score=1.0), "new_score"),
        (lambda v: v["report"].update(leep="high"), "damaged"),
        (lambda v: v["report"].pop("leave_one_out_leep"), "damaged.*lacks fields.*leave_one_out_leep"),
        (lambda v: v["report"].pop("num_samples"), "num_samples"),
        (lambda v: v.pop("report"), "damaged"),
        (lambda v: v["report"].update(num_samples=None), "damaged.*`num_samples` must be an integer, got None"),
        (lambda v: v["report"].update(num_samples=249), "damaged.*`class_counts`"),
        (lambda v: v.update(curve=[1, 2]), "damaged"),
        (lambda v: v["curve"].update(loss=[1]), "damaged"),
        (lambda v: v["curve"].update(accuracy=["0.7"]), "damaged.*`accuracy` must hold numbers"),
        (lambda v: v.update(reference={"accuracy": []}), "damaged"),
        (lambda v: v.update(test_size="500"), "damaged.*`test_size`"),
        (lambda v: v["curve"].update(accuracy=[70.0]), "0..1"),
        (lambda v: v.pop("trainable"), "trainable"),
        (lambda v: v.update(forecast={**FORECAST, "low": 0.71}), "damaged.*inside an interval"),
        (lambda v: v.update(forecast={**FORECAST, "high": 0.69}), "damaged.*inside an interval"),
        (lambda v: v.update(forecast={**FORECAST, "coverage": 1}), "damaged.*inside an interval"),
        (lambda v: v.update(forecast={**FORECAST, "value": None}), "damaged.*value"),
    ],
)
def test_other_content_is_refused_with_its_reason(change, message):
    values = json.loads(make_record().to_json())
    change(values)
    with pytest.raises(ValueError, match=message):
        TransferRecord.from_dict(values)


def test_foreign_json_is_refused():
    for values in ([], "text", None, {"name": "other"}):
        with pytest.raises(ValueError, match="not a record"):
            TransferRecord.from_dict(values)


def test_flat_row():
    assert make_record(curve=AccuracyCurve()).achieved is None
    row = make_record(curve=CURVE, wall_seconds=(1, 2, 3), reference=0.5, versions={"a-b": "1"}).to_flat_dict()
    assert row["achieved_accuracy"] == 0.8
    assert row["epochs"] == 3
    assert row["wall_seconds"] == 3
    assert row["epochs_to_90_percent"] == 2
    assert row["epoch_reference_passed"] == 2
    assert row["version_a_b"] == "1"
    assert row["scoring_seconds"] == make_report().seconds
    assert all(isinstance(value, str | int | float | None) for value in row.values())
