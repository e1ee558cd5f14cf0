"""The text panel, as TensorBoard renders it."""

import dataclasses
import math
import re

import pytest
import torch
from tensorboard.plugin_util import markdown_to_safe_html

from lightning_leep import score
from lightning_leep.forecast import AccuracyForecast, forecast_convergence
from lightning_leep.records import AccuracyCurve
from lightning_leep.tensorboard import report_markdown
from tests._helpers.simulated_transfers import make_record, make_report

CURVE = AccuracyCurve((1, 2, 3), (0.4, 0.75, 0.72))


def forecast(value, low=0.6, high=0.8, **values):
    """A forecast with a basis that fits in a sentence."""
    values = {"coverage": 0.9, "trainable": "head", "basis": "9 rows", **values}
    return AccuracyForecast(value=value, low=low, high=high, **values)


def rendered(*args, **kwargs):
    return markdown_to_safe_html(report_markdown(*args, **kwargs))


def words(*args, **kwargs):
    return " ".join(re.sub(r"<[^>]+>", " ", rendered(*args, **kwargs)).split())


def test_before_training_it_says_what_was_scored_and_what_is_expected(report):
    text = words(report, forecast(0.7), source_name="resnet20")
    assert "How well does resnet20 transfer?" in text
    assert "resnet20 (4 classes) was run once over 40 samples of 3 target classes (2.0 s, 20 samples a second)" in text
    # H(Y) = 1.5 bits = 1.0397; out of sample 1 - 0.6 / 1.0397 of it is explained.
    assert "LEEP -0.500 , on a scale from -1.040 (the source says nothing about the labels) to 0" in text
    assert "from the others alone, it is -0.600, so the source explains 42.3% of the label information" in text
    assert "Predicted accuracy: 70.0%. Training the head is expected to reach accuracy 0.700 (90% interval" in text
    assert "Best accuracy" not in text


@pytest.mark.parametrize(("leep", "outside"), [(-0.9, False), (-0.2, True)])
def test_says_when_no_earlier_transfer_was_like_this_one(report, leep, outside):
    curve = AccuracyCurve((1, 2), (0.4, 0.6))
    history = [make_record(report=make_report(leep=-1.5 + 0.1 * i), curve=curve) for i in range(12)]
    convergence = forecast_convergence(make_report(leep=leep), history)
    assert convergence.out_of_range == outside
    assert (
        "none of them with a LEEP like this one's" in words(report, forecast(0.7), convergence=convergence)
    ) == outside


def test_what_limits_the_forecast_stands_with_what_limits_the_scores(report):
    html = rendered(report, forecast(0.7, notes=("It lies outside the history.",)))
    scores, limits = html.index("<li>Half of the samples were scored.</li>"), html.index("<li>It lies outside")
    assert scores < limits < html.index("<table>")


def test_after_training_it_tells_how_it_came_out(report):
    text = words(report, forecast(0.7), CURVE, stopped="It was hopeless.")
    assert "Stopped. It was hopeless." in text
    assert (
        "Best accuracy: 75.0% , after 2 epochs (72.0% after 3 epochs): 5.0 points above the prediction, inside its "
        "interval; the prediction was reached after 2 epochs. Of its best accuracy it reached 50% after 1 epoch, "
        "90% after 2 epochs and 99% after 2 epochs."
    ) in text
    text = words(report, forecast(0.8, low=0.76, high=0.9), CURVE)
    assert ": 5.0 points below the prediction, outside its interval; the prediction was not reached." in text
    assert "Stopped" not in text


def test_without_a_prediction_there_is_none_and_the_best_at_the_end_is_told_once(report):
    text = words(report, curve=AccuracyCurve((1, 2), (0.4, 0.75)))
    assert "rediction" not in text.replace("leave-one-out", "")
    assert "Best accuracy: 75.0% , after 2 epochs. Of its best" in text


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        (
            0.5,
            "reached 50.0% at best. This run was above it first after 2 epochs and reached that best after 2 epochs.",
        ),
        (0.9, "reached 90.0% at best. This run was never above it and did not reach that best."),
        (
            AccuracyCurve((1, 2, 3), (0.1, 0.3, 0.74)),
            "reached 74.0% at best. This run was above it first after 1 epoch and reached that best after 2 epochs.",
        ),
    ],
)
def test_compares_with_the_reference(report, reference, sentence):
    assert sentence in words(report, forecast(0.7), CURVE, reference)


def test_a_reference_without_validations_is_not_compared_with(report):
    assert "reference" not in words(report, forecast(0.7), CURVE, AccuracyCurve())


def test_one_table_holds_the_scores_with_their_errors(report):
    html = rendered(report)
    assert html.count("<table>") == 1
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in html.split("<tr>")[2:]]
    assert [row[:2] for row in rows] == [
        ["LEEP", "-0.500 ± 0.098"],
        ["LEEP, leave-one-out", "-0.600 ± 0.118"],
        ["floor", "-1.040"],
        ["EEP accuracy", "70.0% ± 3.9%"],
    ]
    assert all(len(row) == 3 and row[2] for row in rows)


def test_scores_that_were_asked_for_join_the_table_and_an_unknown_error_is_left_out(report):
    full = dataclasses.replace(
        report,
        nce=-0.9,
        nleep=-0.8,
        h_score=1.25,
        log_me=0.5,
        linear_probe_accuracy=0.75,
        linear_probe_accuracy_standard_error=0.01,
        leep_standard_error=math.nan,
        eep_accuracy_standard_error=math.inf,
    )
    text = words(full)
    for cell in ("linear probe accuracy 75.0% ± 2.0%", "NCE -0.900", "N-LEEP -0.800", "H-score 1.250", "LogME 0.500"):
        assert cell in text
    assert "nan" not in text
    assert "inf" not in text.replace("information", "")


def test_no_notes_and_a_name_in_angle_brackets(report):
    html = rendered(dataclasses.replace(report, notes=()), source_name="<lambda>")
    assert "with care" not in html
    assert "&lt;lambda&gt;" in html


@pytest.fixture(scope="module")
def constant():
    """A source that says nothing of 50 images of one class and one image each of 50 others.

    Without the single ones, what remains is one class that has half of all images: a source that says nothing gets
    log 0.5 on it, where it gets -H(Y) = 0.5 log 0.5 + 0.5 log 0.01 on all.
    """
    target = torch.cat([torch.zeros(50), torch.arange(1, 51)]).long()
    return score(lambda x: torch.zeros(len(x), 4), [(torch.zeros(100, 1), target)], 51, progress=False)


def with_single_classes(report, **changes):
    """Images of classes: 20, 18, 1, 1."""
    counts = (20, 18, 1, 1)
    entropy = -sum(count / 40 * math.log(count / 40) for count in counts)
    changes = {"num_target_classes": 4, "class_counts": counts, "label_entropy": entropy, **changes}
    return dataclasses.replace(report, joint=None, **changes)


def test_source_that_says_nothing_explains_nothing_of_classes_with_single_images(constant):
    """Against -H(Y) = -2.649 its -0.703 would be 73%."""
    text = report_markdown(constant)
    assert "explains" not in text
    assert "it is -0.703; a source that says nothing would have -0.693." in text
    assert "outputs are the same for every target class" in text
    assert "noise" not in text


def test_share_is_that_of_the_rows_which_are_counted(report):
    floor = (20 * math.log(20 / 40) + 18 * math.log(18 / 40)) / 38
    text = report_markdown(with_single_classes(report, leave_one_out_leep=0.25 * floor, leep=-0.1))
    assert "the source explains **75.0% of the label information**" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"permutation_p_value": 0.3}, "it is -0.600; a source that says nothing would have -1.040."),
        ({"leave_one_out_leep_standard_error": 0.3}, "it is -0.600; a source that says nothing would have -1.040."),
        ({"leep": -0.01, "leave_one_out_leep": -3.0}, "it is -3.000; a source that says nothing would have -1.040."),
        ({"leave_one_out_leep": math.nan}, ""),
        ({"label_entropy": 0.0, "class_counts": (0, 40, 0)}, ""),
    ],
)
def test_no_share_is_claimed_of_what_may_be_noise_or_is_unknown(report, change, said):
    """Floor -1.040, leave-one-out LEEP -0.6."""
    assert "explains" in words(report)
    text = words(dataclasses.replace(report, **change))
    assert "explains" not in text
    assert said in text


def test_both_floors_are_shown_where_they_differ(report, constant):
    assert "leave-one-out | -0.693" in report_markdown(constant)
    single = dataclasses.replace(report, class_counts=(1, 1, 1), num_samples=3, leave_one_out_leep=math.nan)
    for alike in (report, single):
        assert "floor, leave-one-out" not in report_markdown(alike)
