"""What a forecast rests on when more than a head is trained: features of all layers, or between them and the last."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_leep.forecast import forecast_accuracy
from lightning_leep.records.layers import LayerScore
from tests._helpers.simulated_transfers import make_record, make_report

HEAD, TOGETHER = 0.6, 0.75
NAMES = ("stem", "layer1.0", "layer1.1", "layer2.0", "layer2.1")


def report(**values):
    layers = tuple(LayerScore(name=name, width=8, kept_width=8, probe_accuracy=0.5) for name in NAMES)
    known = {"linear_probe_accuracy": HEAD, "multi_layer_probe_accuracy": TOGETHER, "layers": layers}
    return replace(make_report(), **{**known, **values})


def between(w):
    """Accuracy between head and all layers on the scale of logits, where half a row is added on both sides."""
    n = make_report().num_samples
    head, together = (math.log((p * n + 0.5) / ((1 - p) * n + 0.5)) for p in (HEAD, TOGETHER))
    return 1 / (1 + math.exp(-((1 - w) * head + w * together)))


@pytest.mark.parametrize(("trainable", "value"), [("head", HEAD), ("all", TOGETHER), ("gradual", TOGETHER)])
def test_each_way_to_train_rests_on_the_features_that_it_can_use(trainable, value):
    forecast = forecast_accuracy(report(), trainable=trainable)
    assert forecast.value == value
    assert ("all layers" in forecast.basis) == (trainable != "head")
    assert forecast.low < value < forecast.high


@pytest.mark.parametrize(("first", "frozen"), [("layer1.0", 1), ("layer1", 1), ("layer2.1", 4), ("layer2.1.conv", 4)])
def test_a_part_lies_between_head_and_all_layers_by_its_first_layer(first, frozen):
    forecast = forecast_accuracy(report(), trainable="part", trained_from=first)
    assert forecast.value == pytest.approx(between(1 - (frozen / len(NAMES)) ** 4), abs=1e-12)


def test_a_part_from_the_stem_on_is_all_layers_one_that_is_not_known_half_way_and_an_unknown_layer_an_error():
    whole = forecast_accuracy(report(), trainable="part", trained_from="stem")
    assert whole.value == pytest.approx(between(1.0))
    assert whole.value == pytest.approx(TOGETHER, abs=1 / make_report().num_samples)
    assert forecast_accuracy(report(), trainable="part").value == pytest.approx(between(0.5))
    with pytest.raises(ValueError, match=r"got 'layer9'\. Its layers: \['stem', 'layer1\.0'"):
        forecast_accuracy(report(), trainable="part", trained_from="layer9")


def test_the_interval_is_narrower_than_without_scores_of_layers():
    alone = forecast_accuracy(report(multi_layer_probe_accuracy=None, layers=()), trainable="all")
    together = forecast_accuracy(report(linear_probe_accuracy=TOGETHER), trainable="all")
    missing = forecast_accuracy(report(multi_layer_probe_accuracy=math.nan), trainable="all")
    assert alone.value == missing.value == HEAD
    assert "all layers" not in missing.basis
    assert together.high - together.low < 0.6 * (alone.high - alone.low)
    assert any("rough guess" in note for note in alone.notes)
    assert not any("rough guess" in note for note in together.notes)


def projected(head, width=2048, kept=512):
    """A report whose head reads a projected layer, the probe on which has the accuracy ``head``."""
    *others, last = report().layers
    return report(layers=(*others, replace(last, width=width, kept_width=kept, probe_accuracy=head, feeds_head=True)))


def logit(p):
    n = make_report().num_samples
    return math.log((p * n + 0.5) / ((1 - p) * n + 0.5))


def test_what_projection_takes_from_the_features_of_the_head_is_added_back():
    gain = logit(HEAD) - logit(0.5)
    forecast = forecast_accuracy(projected(0.5), trainable="all")
    assert logit(forecast.value) == pytest.approx(logit(TOGETHER) + gain)
    plain = forecast_accuracy(report(multi_layer_probe_accuracy=forecast.value), trainable="all")
    assert forecast.high - forecast.low > 1.1 * (plain.high - plain.low)
    part = forecast_accuracy(projected(0.5), trainable="part", trained_from="stem")
    assert part.value == pytest.approx(forecast.value, abs=1 / make_report().num_samples)
    assert forecast_accuracy(projected(0.5), trainable="head").value == HEAD


@pytest.mark.parametrize("layer", [{"head": 0.62}, {"head": 0.5, "width": 512}, {"head": None}])
def test_nothing_is_added_where_nothing_was_lost(layer):
    assert forecast_accuracy(projected(**layer), trainable="all").value == TOGETHER


def test_a_history_of_the_same_kind_corrects_it():
    rng = np.random.default_rng(0)
    records = []
    for _ in range(20):
        p = rng.uniform(0.5, 0.9)
        values = report(multi_layer_probe_accuracy=p, leep=-rng.uniform(0.5, 1.0))
        achieved = 1 / (1 + math.exp(-(math.log(p / (1 - p)) + 0.4)))  # always 0.4 logits above the probe
        records.append(replace(make_record(achieved), report=values, trainable="all"))
    forecast = forecast_accuracy(report(), records, trainable="all")
    wanted = 1 / (1 + math.exp(-(math.log(TOGETHER / (1 - TOGETHER)) + 0.4)))
    assert forecast.num_records == 20
    assert forecast.value == pytest.approx(wanted, abs=0.02)
