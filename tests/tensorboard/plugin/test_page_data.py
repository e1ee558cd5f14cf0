"""The data of the page: made from records, complete, bounded, and JSON in any case."""

import json
import math

import pytest

from lightning_leep.forecast import AccuracyForecast, forecast_accuracy
from lightning_leep.records import AccuracyCurve
from lightning_leep.records.association import Association
from lightning_leep.records.layers import LayerScore
from lightning_leep.tensorboard.plugin.page_data import page_data, thinned
from tests._helpers.simulated_transfers import make_record, make_report

CURVE = AccuracyCurve((1, 2, 3), (0.4, 0.8, 0.75))


def only(record):
    data = page_data([record])
    (transfer,) = data["transfers"]
    return transfer, data["texts"]


def test_what_is_known_of_a_transfer():
    report = make_report(notes=("Pixels are not independent.",))
    forecast = forecast_accuracy(report, test_size=500)
    record = make_record(
        report=report,
        curve=CURVE,
        forecast=forecast,
        running=((1, 0.7, 0.6, 0.8),),
        source_name="resnet",
        reference=0.3,
    )
    transfer, texts = only(record)
    assert (transfer["source"], transfer["achieved"], transfer["to90"], transfer["epochs"]) == ("resnet", 0.8, 2, 3)
    assert transfer["curve"] == [[1, 2, 3], [0.4, 0.8, 0.75]]
    assert transfer["running"] == [[1, 0.7, 0.6, 0.8]]
    assert transfer["reference"] == 0.3
    assert transfer["forecast"]["value"] == pytest.approx(forecast.value, rel=1e-4)
    assert not transfer["forecast"]["made_again"]
    assert texts[transfer["forecast"]["basis"]] == forecast.basis
    assert [texts[place] for place in transfer["notes"]] == [*report.notes, *forecast.notes]


def test_forecast_that_was_not_recorded_is_made_again_and_says_so():
    transfer, _ = only(make_record(test_size=500))
    again = forecast_accuracy(make_report(), test_size=500)
    assert transfer["forecast"]["made_again"]
    assert transfer["forecast"]["value"] == pytest.approx(again.value, rel=1e-4)


def test_transfer_without_anything():
    for values in ({"trainable": "scratch"}, {"trainable": "part", "trained_from": "no such layer"}):
        transfer, _ = only(make_record(curve=AccuracyCurve(), **values))
        assert transfer["achieved"] is transfer["epochs"] is transfer["to90"] is transfer["forecast"] is None


def test_a_name_cannot_turn_the_text_after_it_and_numbers_that_json_lacks_are_missing():
    record = make_record(
        report=make_report(leep=math.nan),
        learning_rate=math.inf,
        source_name="\u202egnp.exe",
        target_name="\u732b caf\u00e9",
    )
    transfer, _ = only(record)
    assert (transfer["source"], transfer["target"]) == ("\\u202egnp.exe", "\u732b caf\u00e9")
    assert transfer["leep"] is transfer["learning_rate"] is None
    json.dumps(page_data([record]), allow_nan=False)


def test_reference_from_the_run_from_scratch_on_the_same_data():
    scratch = make_record(curve=AccuracyCurve((1, 2), (0.1, 0.2)), trainable="scratch", target_name="pets")
    data = page_data([scratch, make_record(curve=CURVE, target_name="pets")])
    assert data["transfers"][1]["reference"] == [[1, 2], [0.1, 0.2]]


def test_levels_of_each_part_that_was_trained():
    def run(achieved, leep, trainable):
        curve = AccuracyCurve((1, 2), (achieved - 0.1, achieved))
        return make_record(report=make_report(leep=leep), curve=curve, trainable=trainable, reference=0.5)

    records = [run(0.6, -1.0, "head"), run(0.8, -1.0, "head"), run(0.9, -0.1, "head"), run(0.9, -0.1, "all")]
    (levels,) = page_data(records)["levels"]  # one run of "all" has no mean
    assert levels["trainable"] == "head"
    low, high = levels["levels"]
    assert (low["count"], high["count"]) == (2, 1)
    epochs, mean, *_ = low["difference"]
    assert (epochs, mean) == ([1, 2], pytest.approx([0.1, 0.2]))
    assert high["accuracy"] is None


@pytest.mark.slow
def test_page_of_a_thousand_transfers_has_less_than_two_megabytes():
    from lightning_leep.tensorboard.plugin.report_html import report_html

    layers = tuple(
        LayerScore(name=f"stage{i // 10}.block{i}", width=64, kept_width=64, probe_accuracy=0.3 + i / 200,
                   probe_standard_error=0.0123456, feeds_head=i == 79)
        for i in range(80)
    )  # fmt: skip
    accuracy = [0.9 - 0.7 / (k + 1.2345) for k in range(100)]
    curve = AccuracyCurve(tuple(range(1, 101)), tuple(accuracy))
    running = tuple((k + 1, a, a - 0.0123, a + 0.0123) for k, a in enumerate(accuracy[:40]))
    note = "Note %d of some length, which limits the numbers in some way that no other transfer has."
    reports = [make_report(layers=layers, notes=tuple(note % (3 * i + k) for k in range(3))) for i in range(1000)]
    classes = [tuple(f"class < {i} > of some length, {kind}" for i in range(n)) for kind, n in (("t", 40), ("s", 20))]
    association = Association(*classes, ((0.123,) * 20,) * 40, "Shown: all.")
    values = {"curve": curve, "running": running, "reference": curve, "association": association, "test_size": 500}
    basis = "a linear probe on the features of all layers on 250 rows"
    forecast = AccuracyForecast(value=0.7, low=0.612345, high=0.81234, coverage=0.9, trainable="head", basis=basis)
    values |= {
        "forecast": forecast,
        "source_name": "vit_base_patch16_224.augreg_in21k_ft_in1k",
        "target_name": "TensorDataset",
    }
    times = [f"2026-01-02T03:{i // 60:02}:{i % 60:02}+00:00" for i in range(1000)]
    records = [make_record(report=report, created=time, **values) for report, time in zip(reports, times, strict=True)]
    data = page_data(records)
    assert len(report_html(data).encode()) < 2_000_000
    assert data["transfers"][-1]["association"]["targets"] == list(classes[0])
    assert data["transfers"][0]["association"] == "left out"


def test_thinned_keeps_ends_and_what_must_stay():
    assert thinned(100, 5, [33]) == [0, 25, 33, 50, 74, 99]
    assert thinned(3, 5) == [0, 1, 2]
