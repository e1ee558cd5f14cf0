"""Tags and values of the scalars."""

import dataclasses
import math

import pytest

from lightning_leep.forecast import RunningForecast
from lightning_leep.records import AccuracyCurve
from lightning_leep.tensorboard.scalars import convergence_tags, hparam_tags, report_tags, running_tags, validation_tags

CURVE = AccuracyCurve((1, 2), (0.5, 0.75))


def test_validation_shows_achieved_beside_predicted():
    assert validation_tags(CURVE, 0.6, AccuracyCurve((1, 3), (0.2, 0.6))) == pytest.approx(
        {
            "leep/predicted_accuracy": 0.6,
            "leep/achieved_accuracy": 0.75,
            "leep/best_accuracy": 0.75,
            "leep/prediction_error": -0.15,  # too little was promised
            "leep/prediction_error_at_best": -0.15,
            "leep/reference_accuracy": 0.4,
            "leep/difference_to_reference": 0.35,
        }
    )


def test_achieved_is_that_of_the_moment_and_best_the_highest_so_far():
    tags = validation_tags(AccuracyCurve((1, 2, 3), (0.5, 0.75, 0.25)), 0.6)
    assert (tags["leep/achieved_accuracy"], tags["leep/best_accuracy"]) == (0.25, 0.75)
    errors = tags["leep/prediction_error"], tags["leep/prediction_error_at_best"]
    assert errors == pytest.approx((0.35, -0.15))


def test_before_the_first_validation_there_is_the_prediction():
    assert validation_tags(AccuracyCurve(), 0.6, 0.5) == {"leep/predicted_accuracy": 0.6}


def test_interval_of_the_prediction_is_drawn_beside_it():
    for curve in (AccuracyCurve(), CURVE):
        tags = validation_tags(curve, 0.6, interval=(0.5, 0.8))
        assert (tags["leep/predicted_accuracy_low"], tags["leep/predicted_accuracy_high"]) == (0.5, 0.8)


@pytest.mark.parametrize("eta", [None, 0.0, 2.5])
def test_running_forecast_and_epochs_to_go_once_they_are_known(eta):
    running = RunningForecast(value=0.7, low=0.6, high=0.9, coverage=0.9, eta_epochs=eta, num_validations=3)
    expected = {
        "leep_running/running_forecast": 0.7,
        "leep_running/running_forecast_low": 0.6,
        "leep_running/running_forecast_high": 0.9,
    }
    assert running_tags(running) == (expected if eta is None else {**expected, "leep/eta_epochs": eta})


def test_past_the_end_of_the_reference_there_is_no_difference():
    tags = validation_tags(CURVE, reference=AccuracyCurve((1,), (0.2,)))
    assert set(tags) == {"leep/achieved_accuracy", "leep/best_accuracy"}


def test_report_has_every_finite_number_and_the_floor(report):
    tags = report_tags(dataclasses.replace(report, leave_one_out_leep=math.nan))
    assert tags["leep_report/leep"] == -0.5
    assert tags["leep_report/floor"] == -report.label_entropy
    assert "leep_report/leave_one_out_leep" not in tags
    assert "leep_report/notes" not in tags


def test_curves_dots_and_a_second_callback_form_groups_of_their_own(report):
    def groups(prefix):
        tags = [*validation_tags(CURVE, 0.6, 0.5, prefix), *report_tags(report, prefix)]
        return {tag.split("/")[0] for tag in [*tags, *convergence_tags(CURVE, 0.6, 0.5, prefix)]}

    assert groups("leep/") == {"leep", "leep_report", "leep_convergence"}
    assert groups("second/") == {"second", "second_report", "second_convergence"}


def test_columns_of_hparams_are_tags_that_are_logged(report):
    logged = {**validation_tags(CURVE, 0.6, 0.5), **report_tags(report), **convergence_tags(CURVE, 0.6, 0.5)}
    assert set(hparam_tags()) <= set(logged)
    # HPARAMS shows five metrics until more are ticked, `hp_metric` first of all.
    assert hparam_tags()[:3] == ["leep/predicted_accuracy", "leep/best_accuracy", "leep/prediction_error_at_best"]
    assert not any(tag.endswith("/best_accuracy") for tag in convergence_tags(CURVE, 0.6))  # it has one name
