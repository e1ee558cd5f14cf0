"""The record that a fit leaves, as `load_history` reads it back."""

import warnings
from importlib.metadata import version

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers.logger import DummyLogger
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_leep import LEEPCallback
from lightning_leep.records import load_history
from tests._helpers.compared_training import plain_state
from tests._helpers.small_transfer import (
    FEW_SCORES,
    Classifier,
    Data,
    fit,
    make_data,
    make_source,
    make_trainer,
    train_loader,
    trained_state,
)


def scored(folder, **kwargs):
    return LEEPCallback(make_source(), history=folder, strict=True, scoring=FEW_SCORES, **kwargs)


class FrozenBody(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.body.requires_grad_(False)


def test_record_holds_what_is_known_of_the_run(tmp_path):
    callback = scored(tmp_path / "history", reference=[0.3, 0.4])
    fit(FrozenBody(), callback)
    (record,) = load_history(tmp_path / "history")
    assert record.report == callback.report
    assert record.curve == callback.curve
    assert record.curve.epochs == (1.0, 2.0)
    assert record.forecast == callback.forecast
    assert [epoch for epoch, *_ in record.running] == [1.0, 2.0]
    assert record.running[-1][1:] == (callback.curve.best,) * 3  # nothing is left to expect
    assert len(record.wall_seconds) == 2
    assert 0 < record.wall_seconds[0] < record.wall_seconds[1] < 60
    assert record.reference.accuracy == (0.3, 0.4)
    assert record.test_size == 40
    assert (record.optimizer, record.learning_rate) == ("SGD", 0.1)
    assert (record.target_name, record.source_name, record.trainable) == ("TensorDataset", "Sequential", "head")
    assert record.versions["torch"] == version("torch")
    assert record.complete


def test_names_that_the_user_gives_and_a_url(tmp_path):
    folder = "memory://transfers"
    fit(Classifier(), scored(folder, target_name="flowers", source_name="resnet", trainable="adapters"))
    (record,) = load_history(folder)
    assert (record.target_name, record.source_name, record.trainable) == ("flowers", "resnet", "adapters")


def test_names_and_classes_of_datamodule_and_module(tmp_path):
    module = Classifier()
    del module.num_classes
    make_trainer(LEEPCallback(history=tmp_path, scoring=FEW_SCORES, strict=True)).fit(module, datamodule=Data())
    (record,) = load_history(tmp_path)
    assert (record.target_name, record.source_name) == ("Data", "Classifier")  # scored by its own `source_logits`
    assert record.report.num_target_classes == 3
    assert not any("from the labels" in note for note in record.report.notes)


class HandsOn(Subset):
    """A data set that answers for whatever it does not know."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def test_name_of_a_data_set_that_seems_to_hold_itself(tmp_path):
    data = HandsOn(make_data(), range(20))
    data.dataset.dataset = data
    fit(Classifier(), scored(tmp_path, num_target_classes=3), loader=train_loader(data))
    assert load_history(tmp_path)[0].target_name in ("HandsOn", "TensorDataset")


def test_default_folder_is_under_the_trainers_root(tmp_path):
    rows = train_loader(Subset(make_data(), range(20)))
    for _ in range(2):
        callback = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True)
        fit(Classifier(), callback, loader=rows, default_root_dir=tmp_path, max_epochs=1)
    records = load_history(tmp_path / "transfer_history")
    assert [record.target_name for record in records] == ["TensorDataset"] * 2  # below the subset


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ({"history": False}, {}),
        ({"monitor": None}, {}),  # nothing was achieved
        ({}, {"fast_dev_run": True}),  # the code was tried, not the transfer
    ],
)
def test_runs_without_a_record(arguments, options, tmp_path):
    callback = LEEPCallback(make_source(), strict=True, scoring=FEW_SCORES, **arguments)
    fit(Classifier(), callback, default_root_dir=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


class Full(DummyLogger):
    """Fails at the end of training, where the text tells how it came out."""

    @property
    def experiment(self):
        return self

    def add_text(self, tag, text, global_step):
        if "Best accuracy" in text:
            raise OSError("disk full")


def test_a_fault_of_a_strict_callback_at_the_end_leaves_the_record(tmp_path):
    callback = scored(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        fit(Classifier(), callback, logger=Full())
    (record,) = load_history(tmp_path)
    assert record.curve == callback.curve
    assert record.curve.epochs == (1.0, 2.0)


def test_broken_folder_warns_once_and_training_is_the_same(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    module, callback = Classifier(), LEEPCallback(make_source(), history=file, scoring=FEW_SCORES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, callback)
    messages = [str(w.message) for w in caught if "LEEPCallback" in str(w.message)]
    assert len(messages) == 1
    assert "could not use the history of transfers" in messages[0]
    assert "`history=` must name a folder" in messages[0]
    assert trained_state(module) == plain_state()
    assert callback.forecast is not None  # from the report alone
    assert file.read_text() == "not a folder"
    with pytest.raises(ValueError, match="must be a folder"):
        fit(Classifier(), scored(file))


def test_folder_that_cannot_be_written_warns_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.warns(UserWarning, match="could not use the history of transfers: OSError: disk full") as caught:
        fit(Classifier(), LEEPCallback(make_source(), history=tmp_path, scoring=FEW_SCORES))
    assert sum("disk full" in str(w.message) for w in caught) == 1
    assert list(tmp_path.iterdir()) == []


class StopAfter(pl.Callback):
    """A user who ends training after a number of batches."""

    def __init__(self, batches):
        self.batches = batches

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.batches


@pytest.mark.parametrize(
    ("batches", "options", "complete"),
    [
        (4, {}, False),  # of 5 batches
        (5, {}, True),
        (99, {"max_epochs": 1, "max_steps": 2, "val_check_interval": 2}, True),  # that is all that was wanted
        (99, {"overfit_batches": 2}, False),
    ],
)
def test_which_records_are_complete(batches, options, complete, tmp_path):
    fit(Classifier(), scored(tmp_path), StopAfter(batches), **{"min_epochs": 0, **options})
    (record,) = load_history(tmp_path)
    assert record.complete == complete


@pytest.mark.slow
def test_module_that_is_no_classifier_is_left_alone(tmp_path):
    callback = LEEPCallback(nn.Linear(32, 3), history=tmp_path / "history", num_target_classes=2, monitor=None)
    labels = TensorDataset(torch.randn(20, 32), torch.arange(20) % 2)
    callback_with_data = LEEPCallback(
        nn.Linear(32, 3), history=tmp_path / "other", num_target_classes=2, dataloader=DataLoader(labels), monitor=None
    )
    with pytest.warns(UserWarning, match="could not score the source model"):
        make_trainer(callback, callback_with_data).fit(BoringModel())
    assert callback.forecast is None
    assert callback_with_data.forecast is not None
