"""Tags and values of the scalars."""

import dataclasses

import pytest

from lightning_leep.forecast import AccuracyForecast, RunningForecast
from lightning_leep.records import AccuracyCurve
from lightning_leep.tensorboard.scalars import (
    forecast_tags,
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


def test_the_forecast_before_training_and_tags_with_one_prefix():
    assert forecast_tags(FORECAST) == PREDICTED
    tags = validation_tags(CURVE, FORECAST, REFERENCE, RUNNING, "second/")
    assert {tag.split("/")[0] for tag in tags} == {"second"}
