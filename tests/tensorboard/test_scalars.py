"""Tags and values of the scalars."""

import dataclasses
import math

import pytest

from lightning_leep.forecast import AccuracyForecast, RunningForecast
from lightning_leep.records import AccuracyCurve
from lightning_leep.tensorboard.scalars import (
    convergence_tags,
    forecast_tags,
    hparam_tags,
    report_tags,
    validation_tags,
)

CURVE = AccuracyCurve((1, 2, 3), (0.5, 0.75, 0.25))
FORECAST = AccuracyForecast(value=0.6, low=0.5, high=0.8, coverage=0.9, trainable="head", basis="9 rows")
RUNNING = RunningForecast(value=0.7, low=0.65, high=0.9, coverage=0.9, eta_epochs=2.5, num_validations=3)
REFERENCE = AccuracyCurve((1, 5), (0.2, 0.6))  # 0.4 after 3 epochs, on a straight line
PREDICTED = {"leep/predicted_accuracy": 0.6, "leep/predicted_low": 0.5, "leep/predicted_high": 0.8}


def test_validation_shows_achieved_beside_predicted():
    assert validation_tags(CURVE, FORECAST, REFERENCE, RUNNING) == pytest.approx(
        {
            **PREDICTED,
            "leep/best_accuracy": 0.75,
            "leep/prediction_error": 0.15,  # of the best: too little was promised
            "leep/reference_accuracy": 0.4,
            "leep/difference_to_reference": -0.15,
            "leep/running_accuracy": 0.7,
            "leep/running_low": 0.65,
            "leep/running_high": 0.9,
            "leep/eta_epochs": 2.5,
        }
    )


def test_what_is_not_known_is_left_out():
    assert validation_tags(CURVE) == {"leep/best_accuracy": 0.75}
    assert validation_tags(CURVE, reference=AccuracyCurve((1,), (0.2,))) == {"leep/best_accuracy": 0.75}
    tags = validation_tags(CURVE, running=dataclasses.replace(RUNNING, eta_epochs=None))
    assert "leep/eta_epochs" not in tags
    assert validation_tags(CURVE, running=dataclasses.replace(RUNNING, eta_epochs=0.0))["leep/eta_epochs"] == 0


def test_report_shows_what_models_are_compared_by(report):
    report = dataclasses.replace(report, linear_probe_accuracy=0.8)
    assert report_tags(report) == {
        "leep/leep": -0.5,
        "leep/leave_one_out_leep": -0.6,
        "leep/linear_probe_accuracy": 0.8,
    }
    missing = dataclasses.replace(report, leave_one_out_leep=math.nan, linear_probe_accuracy=None)
    assert report_tags(missing) == {"leep/leep": -0.5}
    assert forecast_tags(FORECAST) == PREDICTED


def test_convergence_of_a_finished_run():
    """Two thirds of 0.75 are passed at once, nine tenths after 2 epochs; trapezoids of 0.625 and 0.5."""
    assert convergence_tags(CURVE, FORECAST, REFERENCE) == pytest.approx(
        {
            "leep/epochs_to_90_percent": 2,
            "leep/area_under_curve": 0.5625,
            "leep/epoch_prediction_reached": 2,
            "leep/epoch_reference_passed": 1,
        }
    )
    assert convergence_tags(AccuracyCurve(), FORECAST) == {}


def every_tag(report, prefix="leep/"):
    report = dataclasses.replace(report, linear_probe_accuracy=0.8)
    during = {**report_tags(report, prefix), **validation_tags(CURVE, FORECAST, REFERENCE, RUNNING, prefix)}
    return [*during, f"{prefix}achieved_accuracy"], list(convergence_tags(CURVE, FORECAST, REFERENCE, prefix))


def test_tags_are_few_and_have_one_prefix(report):
    during, at_the_end = every_tag(report, "second/")
    assert len(during) <= 15
    assert len(during) + len(at_the_end) <= 20
    assert {tag.split("/")[0] for tag in during + at_the_end} == {"second"}


def test_columns_of_hparams_are_tags_that_are_logged(report):
    during, at_the_end = every_tag(report)
    assert set(hparam_tags()) <= {*during, *at_the_end}
    # HPARAMS shows five metrics until more are ticked, `hp_metric` first of all.
    assert hparam_tags()[:3] == ["leep/predicted_accuracy", "leep/best_accuracy", "leep/prediction_error"]
