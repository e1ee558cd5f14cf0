"""Advice in a fit: in the log and in TensorBoard before training, and in the record beside what was trained."""

import copy
import dataclasses
import logging

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_leep import LayerTransfer, LEEPCallback, ScoringOptions, advise, score
from lightning_leep.forecast import forecast_accuracy
from lightning_leep.records import load_history
from tests._helpers.distributed import run_processes
from tests._helpers.small_transfer import (
    C,
    Classifier,
    D,
    Z,
    fit,
    make_trainer,
    train_loader,
    trained_state,
    val_loader,
)


class Block(nn.Module):
    def __init__(self, inputs: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.second(self.first(x).relu())


class Source(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(D, 32)
        self.layer1, self.layer2 = nn.Sequential(Block(32), Block()), nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, Z)
        nn.init.normal_(self.norm.weight)  # weights that are all the same prove nothing

    def forward(self, x):
        return self.head(self.norm(self.layer2(self.layer1(self.stem(x)))))


class Numbered(Classifier):
    """Takes a copy of the source's children without their names, as is usual with torchvision."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*list(copy.deepcopy(source).children())[:-1])
        self.head = nn.Linear(8, C)


def frozen(module, *parts):
    for name in parts:
        module.get_submodule(name).requires_grad_(False)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "first"),
    [
        (("body.0",), "layer1.0"),
        (("body.0", "body.1"), "layer2.0"),
        (("body.0", "body.1", "body.2.0"), "layer2.1"),
        (("body.1",), "stem"),
        (("body.0", "body.1", "body.2"), "head input"),  # the last normalisation
        (("body.0", "body.1.0.first"), "layer1.0"),
    ],
)
def test_the_first_trained_layer_is_forecast_and_recorded(parts, first, tmp_path):
    source = Source()
    callback = LEEPCallback(source, history=tmp_path, strict=True)
    fit(frozen(Numbered(source), *parts), callback)
    (record,) = load_history(tmp_path)
    assert (record.trainable, record.trained_from) == ("part", first)
    expected = forecast_accuracy(callback.report, trainable="part", trained_from=first, test_size=40)
    assert callback.forecast == expected


def test_a_plain_network_is_counted_by_its_layers(tmp_path):
    torch.manual_seed(0)
    layers = [nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, Z)]
    source = nn.Sequential(*layers)
    module = Numbered(source)
    fit(frozen(module, "body.0", "body.2"), LEEPCallback(source, history=tmp_path, strict=True))
    assert load_history(tmp_path)[0].trained_from == "5"  # a layer is called after its activation


@pytest.mark.parametrize(("parts", "word"), [((), "all"), (("body",), "head")])
def test_only_a_part_has_a_first_layer(parts, word, tmp_path):
    source = Source()
    fit(frozen(Numbered(source), *parts), LEEPCallback(source, history=tmp_path, strict=True))
    (record,) = load_history(tmp_path)
    assert (record.trainable, record.trained_from) == (word, "")


class Named(Classifier):
    """Takes a copy of the source with a new head in the place of the old one."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        del self.body, self.head
        self.net = copy.deepcopy(source)
        self.net.head = nn.Linear(8, C)

    def forward(self, inputs):
        return self.net(inputs)


def test_with_layer_transfer_the_record_has_its_name(tmp_path):
    source = Source()
    fit(Named(source), LayerTransfer("layer2.1"), LEEPCallback(source, history=tmp_path, strict=True))
    assert load_history(tmp_path)[0].trained_from == "layer2.1"


@pytest.mark.slow
@pytest.mark.parametrize("trainable", ["head", "part", "all"])
def test_what_the_callback_trains_is_what_was_recommended(trainable, tmp_path):
    source = Source()
    advice = advise(score(source, train_loader(), C, progress=False))
    (choice,) = [choice for choice in advice.choices if choice.trainable == trainable and not choice.reads]
    advice = dataclasses.replace(advice, recommended=advice.choices.index(choice))
    fit(Named(source), advice.callback(), LEEPCallback(source, history=tmp_path, strict=True))
    (record,) = load_history(tmp_path)
    assert record.trainable == trainable
    assert record.trained_from == (choice.trained_from if trainable == "part" else "")


def two_processes(rank, world_size, folder):
    source = Source()
    callback = LEEPCallback(source, history=folder, strict=True)
    trainer = make_trainer(LayerTransfer("layer2.1"), callback, strategy="ddp", devices=2)
    trainer.fit(Named(source), train_loader(shuffle=False), val_loader())
    return callback.forecast, callback.state_dict()["recommended"], callback.report


@pytest.mark.distributed
def test_two_processes_have_one_advice(tmp_path):
    first, second = run_processes(two_processes, 2, str(tmp_path))
    assert first[:2] == second[:2]
    advice = advise(first[2], test_size=40)
    assert first[1] == advice.choice.trained_from
    (record,) = load_history(tmp_path)
    assert (record.trained_from, record.recommended) == ("layer2.1", first[1])


def test_a_run_that_goes_on_keeps_what_was_recommended(tmp_path):
    source, history = Source(), tmp_path / "history"
    saver = ModelCheckpoint(tmp_path, save_last=True)
    callback = LEEPCallback(source, history=history, strict=True)
    fit(Named(source), callback, saver, enable_checkpointing=True)
    checkpoint = torch.load(saver.last_model_path, weights_only=True)
    state = checkpoint["callbacks"]["LEEPCallback{'name': 'leep'}"]
    assert state["recommended"] == load_history(history)[0].recommended != ""
    state["recommended"] = "layer1.1"  # what nothing recommends here
    torch.save(checkpoint, tmp_path / "resumed.ckpt")
    going_on = make_trainer(LEEPCallback(source, history=history, strict=True), max_epochs=3)
    going_on.fit(Named(source), train_loader(), val_loader(), ckpt_path=tmp_path / "resumed.ckpt")
    assert [record.recommended for record in load_history(history)][1:] == ["layer1.1"]


def panel(logger, tag="leep/advice/text_summary"):
    events = EventAccumulator(logger.log_dir).Reload()
    return [event.tensor_proto.string_val[0].decode() for event in events.Tensors(tag)]


@pytest.mark.slow
def test_it_is_said_before_training_and_recorded(tmp_path, caplog):
    source, logger = Source(), TensorBoardLogger(tmp_path)
    callback = LEEPCallback(source, history=tmp_path / "history", strict=True)
    with caplog.at_level(logging.INFO):
        fit(Numbered(source), callback, logger=logger)
    advice = advise(callback.report, test_size=40)
    assert advice.choice is not None
    assert [m for m in caplog.messages if "Recommended" in m] == [f"LEEPCallback: {advice.describe()}"]
    (text,) = panel(logger)
    assert advice.describe() in text
    assert text.count("\n| ") == 2 + len(advice.choices)
    for choice in advice.choices:
        assert f"{choice.forecast.value:.3f}" in text
    (record,) = load_history(tmp_path / "history")
    assert record.recommended == advice.choice.trained_from


def test_without_layers_there_is_none(tmp_path, caplog):
    source, logger = Source(), TensorBoardLogger(tmp_path)
    options = {"scoring": ScoringOptions(layers=None), "history": tmp_path / "history", "strict": True}
    with caplog.at_level(logging.INFO):
        fit(Numbered(source), LEEPCallback(source, **options), logger=logger)
    assert not any("recommended" in message.lower() for message in caplog.messages)
    assert "leep/advice/text_summary" not in EventAccumulator(logger.log_dir).Reload().Tags()["tensors"]
    assert load_history(tmp_path / "history")[0].recommended == ""


def fail(*args, **kwargs):
    raise ArithmeticError("no advice")


@pytest.mark.parametrize(
    ("place", "task"),
    [
        ("callbacks.fit.outlook.advise", "advise what to train"),
        ("layers.trained_part.layers_of_parameters", "find the first trained layer"),
    ],
)
def test_a_fault_costs_the_advice_alone(place, task, monkeypatch, tmp_path):
    source = Source()
    module, plain = (frozen(Numbered(source), "body.0") for _ in range(2))
    plain.load_state_dict(module.state_dict())
    fit(plain)
    monkeypatch.setattr(f"lightning_leep.{place}", fail)
    callback = LEEPCallback(source, history=tmp_path)
    with pytest.warns(UserWarning, match=f"could not {task}.*no advice"):
        fit(module, callback)
    assert trained_state(module) == trained_state(plain)
    assert callback.forecast is not None
    (record,) = load_history(tmp_path)
    assert record.trainable == "part"
    assert (record.recommended == "") == ("advise" in task)
    assert (record.trained_from == "") == ("find" in task)
