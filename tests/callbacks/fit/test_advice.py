"""Advice in a fit: in the log and in TensorBoard before training, and in the record beside what was trained."""

import dataclasses
import logging
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from lightning_leep import LEEPCallback, ScoringOptions, advise, score
from lightning_leep.forecast import forecast_accuracy
from lightning_leep.layers.trained_part import TrainedPart
from lightning_leep.records import load_history
from tests._helpers.block_networks import Network, Numbered, Tuned, frozen
from tests._helpers.logged import events, texts
from tests._helpers.saved_history import save_earlier
from tests._helpers.small_transfer import C, D, Z, fit, resume, train_loader, trained_state


@pytest.fixture(scope="module")
def report():
    return score(Network(), train_loader(), C, progress=False)


def first_trained_layer(module, source, report):
    part = TrainedPart()
    part.look(SimpleNamespace(callbacks=(), optimizers=(), max_epochs=2), module, source)
    return part.word, part.first_layer(source, report)


@pytest.mark.parametrize(
    ("parts", "first"),
    [
        (("body.0",), "blocks.0"),
        (("body.0", "body.1.0"), "blocks.1"),
        (("body.1",), "stem"),
        (("body.0", "body.1"), "head input"),  # the last normalisation
        (("body.0", "body.1.0.first"), "blocks.0"),
    ],
)
def test_the_first_trained_layer_is_named_as_in_the_report(parts, first, report):
    source = Network()
    assert first_trained_layer(frozen(Numbered(source), *parts), source, report) == ("part", first)


def test_a_plain_network_is_counted_by_its_layers():
    layers = [nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, Z)]
    source = nn.Sequential(*layers)
    report = score(source, train_loader(), C, progress=False)
    module = frozen(Numbered(source), "body.0", "body.2")
    assert first_trained_layer(module, source, report) == ("part", "5")  # a layer is called after its activation


def test_what_the_callback_trains_is_what_was_recommended_forecast_and_recorded(report, tmp_path):
    source, advice = Network(), advise(report)
    (choice,) = [choice for choice in advice.choices if choice.trainable == "part"]
    advice = dataclasses.replace(advice, recommended=advice.choices.index(choice))
    callback = LEEPCallback(source, history=tmp_path, strict=True)
    fit(Tuned(source), advice.callback(), callback)
    (record,) = load_history(tmp_path)
    assert (record.trainable, record.trained_from) == ("part", choice.trained_from)
    options = {"trainable": "part", "trained_from": choice.trained_from, "test_size": 40}
    assert callback.forecast == forecast_accuracy(callback.report, **options)


def test_a_run_that_goes_on_keeps_what_was_recommended_and_forecast(tmp_path):
    source, history = Network(), tmp_path / "history"
    saver = ModelCheckpoint(tmp_path, save_last=True)
    first = LEEPCallback(source, history=history, strict=True)
    fit(Tuned(source), first, saver, enable_checkpointing=True)
    checkpoint = torch.load(saver.last_model_path, weights_only=True)
    state = checkpoint["callbacks"]["LEEPCallback{'name': 'leep'}"]
    assert state["recommended"] == load_history(history)[0].recommended != ""
    state["recommended"] = "blocks.1"  # what nothing recommends here
    torch.save(checkpoint, tmp_path / "resumed.ckpt")
    save_earlier(history)  # another forecast would be made now
    second = LEEPCallback(source, history=history, strict=True)
    resume(tmp_path / "resumed.ckpt", Tuned(source), second)
    assert second.forecast == first.forecast
    assert second.forecast.num_records == 0
    assert "blocks.1" in {record.recommended for record in load_history(history)}


@pytest.mark.usefixtures("no_figures")
def test_it_is_said_before_training_and_recorded(tmp_path, caplog):
    source, logger = Network(), TensorBoardLogger(tmp_path)
    callback = LEEPCallback(source, history=tmp_path / "history", strict=True)
    with caplog.at_level(logging.INFO):
        fit(Numbered(source), callback, logger=logger)
    advice = advise(callback.report, test_size=40)
    assert advice.choice is not None
    assert [m for m in caplog.messages if "Recommended" in m] == [f"LEEPCallback: {advice.describe()}"]
    (text,) = texts(events(logger.log_dir), "advice")
    assert advice.describe() in text
    assert text.count("\n| ") == 2 + len(advice.choices)
    for choice in advice.choices:
        assert f"{choice.forecast.value:.3f}" in text
    (record,) = load_history(tmp_path / "history")
    assert record.recommended == advice.choice.trained_from


@pytest.mark.usefixtures("no_figures")
def test_without_layers_there_is_none(tmp_path, caplog):
    source, logger = Network(), TensorBoardLogger(tmp_path)
    options = {"scoring": ScoringOptions(layers=None), "history": tmp_path / "history", "strict": True}
    with caplog.at_level(logging.INFO):
        fit(Numbered(source), LEEPCallback(source, **options), logger=logger)
    assert not any("recommended" in message.lower() for message in caplog.messages)
    assert "leep/advice/text_summary" not in events(logger.log_dir).Tags()["tensors"]
    assert load_history(tmp_path / "history")[0].recommended == ""


def fail(*args, **kwargs):
    raise ArithmeticError("no advice")


def test_faults_cost_the_advice_alone(monkeypatch, tmp_path):
    source = Network()
    module, plain = (frozen(Numbered(source), "body.0") for _ in range(2))
    plain.load_state_dict(module.state_dict())
    fit(plain)
    monkeypatch.setattr("lightning_leep.callbacks.fit.outlook.advise", fail)
    monkeypatch.setattr("lightning_leep.layers.trained_part.layers_of_parameters", fail)
    callback = LEEPCallback(source, history=tmp_path)
    with pytest.warns(UserWarning, match="no advice") as caught:
        fit(module, callback)
    said = [str(w.message) for w in caught if "ArithmeticError: no advice" in str(w.message)]
    assert ["find the first trained layer" in said[0], "advise what to train" in said[1], len(said)] == [True, True, 2]
    assert trained_state(module) == trained_state(plain)
    assert callback.forecast is not None
    (record,) = load_history(tmp_path)
    assert (record.trainable, record.trained_from, record.recommended) == ("part", "", "")
