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
from tests._helpers.small_transfer import Classifier, fit, make_source, resume, train_loader, trained_state

KEY = "LEEPCallback{'name': 'leep'}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of two epochs of training, as its content."""
    folder = tmp_path_factory.mktemp("checkpoint")
    saver = pl.callbacks.ModelCheckpoint(folder, save_last=True)
    fit(Classifier(), LEEPCallback(make_source(), strict=True), saver, enable_checkpointing=True)
    return torch.load(saver.last_model_path, weights_only=True)


def resume_from(content, path, *callbacks):
    """Train a third epoch from a checkpoint; return what training leaves behind, and the warnings."""
    torch.save(content, path)
    module = Classifier()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resume(path, module, *callbacks)
    return trained_state(module), [str(w.message) for w in caught if "LEEPCallback could" in str(w.message)]


MISSING, TENSOR = object(), torch.tensor([1.0, 2.0])
FIELDS = [field.name for field in dataclasses.fields(FitState)]
#: Places in a state, () for the whole of it, and what is there instead.
DAMAGE = [
    *(((name,), value) for name in FIELDS for value in (MISSING, TENSOR, "0.5")),
    ((), [1, 2]),
    ((), "state"),
    ((), 3),
    ((), {"layer.weight": torch.ones(2, 2)}),  # of a module
    (("version",), 2),  # a key more
    (("report", "leep"), MISSING),
    (("report", "leep"), torch.tensor(-0.5)),
    (("forecast", "notes"), MISSING),
    (("forecast", "quantiles"), (0.1,)),
    (("forecast", "value"), torch.tensor(0.5)),
    (("forecast", "low"), 1.0),
    (("forecast", "high"), float("nan")),
    (("forecast", "coverage"), 1),
    (("forecast", "basis"), None),
    (("forecast", "num_records"), 0.5),
    (("forecast", "notes"), "note"),
    (("curve", "epochs"), MISSING),
    (("curve", "epochs"), TENSOR),
    (("curve", "epochs"), [torch.tensor(1.0), torch.tensor(2.0)]),
    (("curve", "epochs"), [2.0, 1.0]),  # they fall
    (("curve", "accuracy"), [50.0, 60.0]),  # in per cent
    (("curve", "accuracy"), [True, False]),
    (("curve", "accuracy"), [0.5]),
    (("seconds",), (1.0,)),  # of two validations
    (("seconds",), (2.0, 1.0)),
    (("seconds",), (1.0, float("inf"))),
    (("first_epoch",), 0.5),
    (("first_epoch",), -1),
    (("trained", "first"), MISSING),
    (("trained", "first"), 3),
    (("trained", "first"), "banana"),
    (("trained", "first"), TENSOR),
    (("trained", "changed"), 0),
    (("trained", "transferred"), "body.0.weight"),
    (("trained", "transferred"), ["body.0.weight"]),
    (("trained", "transferred"), [[1, 2]]),
]


def damaged(state, path, value):
    if not path:
        return value
    inner = state = copy.deepcopy(state)
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    if value is MISSING:
        del inner[path[-1]]
    return state


@pytest.fixture(scope="module")
def undamaged(checkpoint, tmp_path_factory):
    """What training leaves behind without the callback."""
    return resume_from(checkpoint, tmp_path_factory.mktemp("plain") / "plain.ckpt")[0]


@pytest.mark.parametrize(("path", "value"), DAMAGE)
def test_a_damaged_state_is_one_warning_and_a_fresh_state(path, value, checkpoint):
    callback, fresh = LEEPCallback(make_source()), LEEPCallback(make_source()).state_dict()
    callback.load_state_dict(checkpoint["callbacks"][KEY])
    assert callback.state_dict() != fresh
    with pytest.warns(UserWarning, match="^LEEPCallback could not read its state from the checkpoint: ") as caught:
        callback.load_state_dict(damaged(checkpoint["callbacks"][KEY], path, value))
    assert len(caught) == 1
    assert callback.state_dict() == fresh


@pytest.mark.slow
@pytest.mark.parametrize(("path", "value"), [((), [1, 2]), (("report", "leep"), TENSOR)])
def test_a_damaged_state_in_a_checkpoint_is_one_warning_and_a_fresh_score(path, value, checkpoint, undamaged, tmp_path):
    content = copy.deepcopy(checkpoint)
    content["callbacks"][KEY] = damaged(content["callbacks"][KEY], path, value)
    callback = LEEPCallback(source := Counting(), history=tmp_path / "history")
    left, said = resume_from(content, tmp_path / "damaged.ckpt", callback)
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
    left, said = resume_from(checkpoint, tmp_path / "whole.ckpt", callback)
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
        resume_from(content, tmp_path / "damaged.ckpt", LEEPCallback(Counting(), strict=True))


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
