"""The achieved accuracy: how it is logged, where it is measured, and what is said of one that cannot be compared."""

import math
import re
import warnings

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_leep import LEEPCallback
from lightning_leep.records import AccuracyCurve
from tests._helpers.small_transfer import (
    FEW_SCORES,
    C,
    Classifier,
    D,
    Stream,
    TrainingOnly,
    fit,
    make_source,
    train_loader,
)

#: What the modules below log, in turn.
VALUES = [0.25, 0.5, 0.75, 0.625]


class Scripted(Classifier):
    """Logs the values above instead of a measured accuracy; at sanity checks a value that must not count."""

    def next_value(self) -> torch.Tensor:
        if self.trainer.sanity_checking:
            return torch.tensor(0.999)
        self.position = getattr(self, "position", -1) + 1
        return torch.tensor(VALUES[self.position])

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        self.log("val_acc", self.next_value())


class InValidationStep(Scripted):
    def on_validation_epoch_end(self):
        pass

    def validation_step(self, batch, batch_idx):
        if batch_idx == 0:
            self.value = self.next_value()
        self.log("val_acc", self.value, on_step=True, on_epoch=True)


class InTrainingStep(TrainingOnly, Scripted):
    """An accuracy of training, taken as the mean over the epoch; no validation loop."""

    on_validation_epoch_end = pl.LightningModule.on_validation_epoch_end

    def training_step(self, batch, batch_idx):
        if batch_idx == 0:
            self.value = self.next_value()
        self.log("val_acc", self.value, on_epoch=True, on_step=False)
        return super().training_step(batch, batch_idx)


class AtTheEndOfTheEpoch(InTrainingStep):
    """The user's own evaluation, after training and after the callbacks' hooks."""

    training_step = Classifier.training_step

    def on_train_epoch_end(self):
        self.log("val_acc", self.next_value())


class BesideValidation(Scripted):
    """A training value next to a validation that logs something else."""

    on_validation_epoch_end = pl.LightningModule.on_validation_epoch_end

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", torch.tensor(1.0))

    on_train_epoch_end = AtTheEndOfTheEpoch.on_train_epoch_end


def curve_of(module, monitor="val_acc", loader=None, **kwargs):
    callback = LEEPCallback(make_source(), monitor, strict=True, num_target_classes=3, scoring=FEW_SCORES)
    fit(module, callback, loader=loader, **{"max_epochs": 3, **kwargs})
    return callback.curve


@pytest.mark.parametrize("kind", [Scripted, InValidationStep, InTrainingStep, AtTheEndOfTheEpoch, BesideValidation])
def test_ways_of_logging(kind):
    curve = curve_of(kind())
    assert curve.epochs == (1.0, 2.0, 3.0)
    assert curve.accuracy == tuple(VALUES[:3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"val_check_interval": 0.4, "max_epochs": 2}, (0.4, 0.8, 1.4, 1.8)),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None, "max_epochs": 2}, (0.6, 1.2, 1.8)),
        ({"check_val_every_n_epoch": 2, "max_epochs": 3, "limit_train_batches": 2}, (2.0,)),
        ({"max_epochs": -1, "max_steps": 8}, (1.0,)),
        ({"fast_dev_run": True}, (1.0,)),
    ],
    ids=str,
)
def test_place_in_training(options, epochs):
    curve = curve_of(Scripted(), **options)
    assert curve.epochs == pytest.approx(epochs)
    assert curve.accuracy == tuple(VALUES[: len(curve)])


@pytest.mark.parametrize(
    ("repeats", "options", "epochs"),
    [
        (1, {"max_epochs": 4, "check_val_every_n_epoch": 2}, (2.0, 4.0)),
        # Five batches an epoch, which nobody knows: validations within epochs are counted.
        (1, {"val_check_interval": 2, "max_epochs": 2}, (1.0, 2.0, 3.0, 4.0)),
        (10**9, {"val_check_interval": 2, "max_steps": 6, "max_epochs": -1}, (1.0, 2.0, 3.0)),
    ],
    ids=str,
)
def test_place_in_epochs_of_unknown_length(repeats, options, epochs):
    callback = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True, dataloader=train_loader())
    fit(Scripted(), callback, loader=DataLoader(Stream(repeats), batch_size=10), **options)
    assert callback.curve.epochs == pytest.approx(epochs)
    assert callback.curve.accuracy == tuple(VALUES[: len(epochs)])


@pytest.mark.parametrize(("kind", "listed"), [(Classifier, "'train_loss', 'val_acc'"), (TrainingOnly, "'train_loss'")])
def test_missing_monitor_lists_what_is_logged(kind, listed, recwarn):
    callback = LEEPCallback(make_source(), "accuracy", scoring=FEW_SCORES)
    fit(kind(), callback)
    (message,) = [str(w.message) for w in recwarn if "monitor='accuracy'" in str(w.message)]
    assert f"Logged so far: {listed}. Call `self.log('accuracy', accuracy)`" in message
    assert len(callback.curve) == 0


def test_missing_monitor_is_noticed_after_the_first_validation():
    module = Classifier()
    with pytest.raises(ValueError, match="`monitor='accuracy'` was not logged"):
        fit(module, LEEPCallback(make_source(), "accuracy", scoring=FEW_SCORES, strict=True), max_epochs=50)
    assert len(module.losses) == 5


def test_monitor_none_compares_nothing(recwarn):
    callback = LEEPCallback(make_source(), None, scoring=FEW_SCORES, strict=True)
    trainer = fit(Classifier(), callback)
    assert len(callback.curve) == 0
    assert "leep/predicted_accuracy" in trainer.callback_metrics
    assert not [w for w in recwarn if "LEEP" in str(w.message)]


@pytest.mark.parametrize(("value", "words"), [(71.0, "divide a percentage by 100"), (math.nan, "got nan")])
def test_values_that_are_no_accuracy(value, words, recwarn):
    class Wrong(Scripted):
        def next_value(self):
            return torch.tensor(value)

    callback = LEEPCallback(make_source(), scoring=FEW_SCORES)
    fit(Wrong(), callback)
    messages = [str(w.message) for w in recwarn if "'val_acc'" in str(w.message)]
    assert len(messages) == 1
    assert re.search(f"could not use the value of 'val_acc'.*{words}.*Training goes on", messages[0])
    assert len(callback.curve) == 0


def test_rounding_above_one_is_one():
    class Rounded(Scripted):
        def next_value(self):
            return torch.tensor(1.0000001)

    assert curve_of(Rounded(), max_epochs=1).accuracy == (1.0,)


class LogsEverySecondTime(Scripted):
    def on_validation_epoch_end(self):
        if self.current_epoch % 2 == 0:
            super().on_validation_epoch_end()


def test_old_values_do_not_count():
    """Lightning keeps the value of the last validation; one that logs nothing measured nothing."""
    assert curve_of(LogsEverySecondTime()) == AccuracyCurve((1, 3), VALUES[:2])


def test_a_value_of_training_is_new_although_it_is_older_than_the_validation():
    class InTraining(BesideValidation):
        on_train_epoch_end = pl.LightningModule.on_train_epoch_end

        def training_step(self, batch, batch_idx):
            self.log("val_acc", torch.tensor(VALUES[self.current_epoch]))
            return super().training_step(batch, batch_idx)

    assert curve_of(InTraining()) == AccuracyCurve((1, 2, 3), VALUES[:3])


def test_a_run_without_a_validation_is_told_so():
    callback = LEEPCallback(make_source(), scoring=FEW_SCORES)
    with pytest.warns(UserWarning, match="No validation ran, so `monitor='val_acc'` has no value") as caught:
        fit(Classifier(), callback, max_steps=3)
    assert not [w for w in caught if "self.log(" in str(w.message)]


GENERATOR = torch.Generator().manual_seed(3)
UNEQUAL = TensorDataset(torch.randn(60, D, generator=GENERATOR), torch.tensor([0] * 48 + [1] * 8 + [2] * 4))
EQUAL = TensorDataset(torch.randn(60, D, generator=GENERATOR), torch.arange(60) % C)


def said(metric, data):
    module, leep = Classifier(), LEEPCallback(make_source(), strict=True)
    module.accuracy = metric
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, leep, loader=train_loader(data))
    return [str(w.message) for w in caught if "`monitor=" in str(w.message)], leep


def test_a_macro_average_of_unequal_classes_is_told_once_with_the_probe_of_its_kind():
    messages, leep = said(MulticlassAccuracy(C, average="macro"), UNEQUAL)
    (message,) = messages
    assert "macro average" in message
    assert f"{leep.report.linear_probe_balanced_accuracy:.3f}" in message


def test_a_score_that_is_not_an_accuracy_is_told():
    (message,), _ = said(MulticlassF1Score(C), EQUAL)
    assert "MulticlassF1Score" in message


@pytest.mark.parametrize(("average", "data"), [("macro", EQUAL), ("weighted", UNEQUAL)])
def test_averages_that_are_the_share_of_rows_are_not_mentioned(average, data):
    assert said(MulticlassAccuracy(C, average=average), data)[0] == []
