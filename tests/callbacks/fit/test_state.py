"""The state of a fit: saved whole, restored whole, and a damaged one is one warning and a fresh score."""

import copy
import dataclasses
import pickle
import warnings

import pytest
import pytorch_lightning as pl
import torch

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.fit.state import FitState
from lightning_leep.records import AccuracyCurve, load_history
from tests._helpers.recording_source import Counting
from tests._helpers.small_transfer import (
    Classifier,
    fit,
    make_source,
    make_trainer,
    train_loader,
    trained_state,
    val_loader,
)

KEY = "LEEPCallback{'name': 'leep'}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of two epochs of training, as its content."""
    folder = tmp_path_factory.mktemp("checkpoint")
    saver = pl.callbacks.ModelCheckpoint(folder, save_last=True)
    fit(Classifier(), LEEPCallback(make_source(), strict=True), saver, enable_checkpointing=True)
    return torch.load(saver.last_model_path, weights_only=True)


def resume(content, path, *callbacks):
    """Train a third epoch from a checkpoint; return what training leaves behind, and the warnings."""
    torch.save(content, path)
    module = Classifier()
    pl.seed_everything(11)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(*callbacks, max_epochs=3).fit(module, train_loader(), val_loader(), ckpt_path=path)
    return trained_state(module), [str(w.message) for w in caught if "LEEPCallback could" in str(w.message)]


def put(*path, value):
    """Damage that puts a value at a place in the state."""

    def damage(state):
        inner = state
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        return state

    return damage


def drop(*path):
    def damage(state):
        inner = state
        for step in path[:-1]:
            inner = inner[step]
        del inner[path[-1]]
        return state

    return damage


def instead(value):
    return lambda state: value


TENSOR = torch.tensor([1.0, 2.0])
DAMAGE = {
    "a list": instead([1, 2]),
    "a text": instead("state"),
    "a number": instead(3),
    "weights": instead({"layer.weight": torch.ones(2, 2)}),
    "one key more": put("version", value=2),
    **{f"without {name}": drop(name) for name in (f.name for f in dataclasses.fields(FitState))},
    **{
        f"{name} is a {kind}": put(name, value=value)
        for name in (f.name for f in dataclasses.fields(FitState))
        for kind, value in (("tensor", TENSOR), ("text", "0.5"))
    },
    "report without leep": drop("report", "leep"),
    "leep is a tensor": put("report", "leep", value=torch.tensor(-0.5)),
    "forecast without notes": drop("forecast", "notes"),
    "forecast from the future": put("forecast", "quantiles", value=(0.1,)),
    "forecast is a tensor": put("forecast", "value", value=torch.tensor(0.5)),
    "forecast outside its interval": put("forecast", "low", value=1.0),
    "forecast is not finite": put("forecast", "high", value=float("nan")),
    "coverage of everything": put("forecast", "coverage", value=1),
    "basis is missing": put("forecast", "basis", value=None),
    "records are a fraction": put("forecast", "num_records", value=0.5),
    "notes are a text": put("forecast", "notes", value="note"),
    "curve of one list": drop("curve", "epochs"),
    "epochs are a tensor": put("curve", "epochs", value=TENSOR),
    "epochs are tensors": put("curve", "epochs", value=[torch.tensor(1.0), torch.tensor(2.0)]),
    "epochs fall": put("curve", "epochs", value=[2.0, 1.0]),
    "accuracy in per cent": put("curve", "accuracy", value=[50.0, 60.0]),
    "accuracy is a truth": put("curve", "accuracy", value=[True, False]),
    "one accuracy fewer": put("curve", "accuracy", value=[0.5]),
    "seconds of one validation": put("seconds", value=(1.0,)),
    "seconds fall": put("seconds", value=(2.0, 1.0)),
    "seconds are infinite": put("seconds", value=(1.0, float("inf"))),
    "first epoch is a fraction": put("first_epoch", value=0.5),
    "first epoch is negative": put("first_epoch", value=-1),
    "trained without a word": drop("trained", "first"),
    "word is a number": put("trained", "first", value=3),
    "word of nobody": put("trained", "first", value="banana"),
    "word is a tensor": put("trained", "first", value=TENSOR),
    "changed is a number": put("trained", "changed", value=0),
    "names are a text": put("trained", "transferred", value="body.0.weight"),
    "names are texts": put("trained", "transferred", value=["body.0.weight"]),
    "names are numbers": put("trained", "transferred", value=[[1, 2]]),
}


@pytest.fixture(scope="module")
def undamaged(checkpoint, tmp_path_factory):
    """What training leaves behind without the callback."""
    return resume(checkpoint, tmp_path_factory.mktemp("plain") / "plain.ckpt")[0]


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_state_is_one_warning_and_a_fresh_state(name, checkpoint):
    callback, fresh = LEEPCallback(make_source()), LEEPCallback(make_source()).state_dict()
    callback.load_state_dict(checkpoint["callbacks"][KEY])
    assert callback.state_dict() != fresh
    with pytest.warns(UserWarning, match="^LEEPCallback could not read its state from the checkpoint: ") as caught:
        callback.load_state_dict(DAMAGE[name](copy.deepcopy(checkpoint["callbacks"][KEY])))
    assert len(caught) == 1
    assert callback.state_dict() == fresh


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a list", "leep is a tensor"])
def test_a_damaged_state_in_a_checkpoint_is_one_warning_and_a_fresh_score(name, checkpoint, undamaged, tmp_path):
    content = copy.deepcopy(checkpoint)
    content["callbacks"][KEY] = DAMAGE[name](content["callbacks"][KEY])
    callback = LEEPCallback(source := Counting(), history=tmp_path / "history")
    left, said = resume(content, tmp_path / "damaged.ckpt", callback)
    (warning,) = said
    assert warning.startswith("LEEPCallback could not read its state from the checkpoint: ")
    assert source.calls == 5
    assert callback.report.num_samples == 50
    assert callback.forecast is not None
    assert callback.curve.epochs == (3.0,)
    assert left == undamaged
    (record,) = load_history(tmp_path / "history")
    assert (record.report, record.curve) == (callback.report, callback.curve)


def test_a_whole_state_is_restored_whole(checkpoint, undamaged, tmp_path):
    callback, saved = LEEPCallback(source := Counting(), strict=True), checkpoint["callbacks"][KEY]
    left, said = resume(checkpoint, tmp_path / "whole.ckpt", callback)
    assert (left, said) == (undamaged, [])
    assert source.calls == 0
    assert callback.curve.epochs == (1.0, 2.0, 3.0)
    state = callback.state_dict()
    assert {name: state[name] for name in ("report", "forecast", "first_epoch", "trained")} == {
        name: saved[name] for name in ("report", "forecast", "first_epoch", "trained")
    }
    assert state["curve"]["accuracy"][:2] == saved["curve"]["accuracy"]
    assert state["seconds"][:2] == saved["seconds"]


def test_strict_raises(checkpoint, tmp_path):
    content = copy.deepcopy(checkpoint)
    content["callbacks"][KEY]["seconds"] = None
    with pytest.raises(TypeError, match="`seconds` must be a sequence of numbers, got NoneType"):
        resume(content, tmp_path / "damaged.ckpt", LEEPCallback(Counting(), strict=True))


def test_round_trip():
    callback = LEEPCallback(make_source(), dataloader=train_loader(), strict=True)
    fit(Classifier(), callback)
    other = LEEPCallback(make_source())
    other.load_state_dict(callback.state_dict())
    again = pickle.loads(pickle.dumps(callback))
    for known in (other, again):
        assert (known.report, known.forecast, known.curve) == (callback.report, callback.forecast, callback.curve)
        assert known.state_dict() == callback.state_dict()
    assert again.state_key == callback.state_key
    assert list(other.state_dict()["association"]["targets"]) == ["0", "1", "2"]  # a resumed run does not score again
    other.load_state_dict(LEEPCallback().state_dict())
    assert (other.report, other.forecast, len(other.curve)) == (None, None, 0)


def test_a_validation_replaces_those_that_training_was_resumed_before():
    state = FitState()
    for epoch, accuracy in ((1, 0.1), (2, 0.2), (3, 0.3), (2.5, 0.4)):
        state.add(epoch, accuracy, seconds=10 * epoch)
    assert state.curve == AccuracyCurve((1, 2, 2.5), (0.1, 0.2, 0.4))
    assert state.seconds == (10, 20, 25)
    state.add(0.5, 0.9, seconds=5)
    assert (state.curve, state.seconds) == (AccuracyCurve((0.5,), (0.9,)), (5,))
