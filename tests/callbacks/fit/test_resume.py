"""State: resuming, fitting again, several callbacks, and what is done outside of training."""

import re

import pytest
import pytorch_lightning as pl
import torch

from lightning_leep import LEEPCallback
from lightning_leep.records import load_history
from tests._helpers.recording_source import Counting
from tests._helpers.small_transfer import (
    FEW_SCORES,
    Classifier,
    fit,
    make_source,
    make_trainer,
    resume,
    train_loader,
    trained_state,
    val_loader,
)


@pytest.fixture
def checkpoint(tmp_path):
    def save(*callbacks):
        saver = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)
        fit(Classifier(), *callbacks, saver, enable_checkpointing=True)
        return saver.last_model_path

    return save


@pytest.mark.slow
def test_resumed_training_is_the_same_with_and_without(checkpoint, tmp_path):
    history = tmp_path / "history"
    first = LEEPCallback(make_source(), history=history, scoring=FEW_SCORES, strict=True)
    path = checkpoint(first)
    resume(path, module := Classifier(), LEEPCallback(make_source(), history=history, scoring=FEW_SCORES, strict=True))
    resume(path, plain := Classifier())
    assert trained_state(module) == trained_state(plain)
    _, record = load_history(history)
    assert (record.report, record.curve.epochs) == (first.report, (1.0, 2.0, 3.0))
    assert record.curve.accuracy[:2] == first.curve.accuracy
    assert list(record.wall_seconds) == sorted(record.wall_seconds)
    assert len(record.wall_seconds) == 3

    # A source with weights of its own may be scored late, and that changes nothing either.
    path, late = checkpoint(), LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True)
    resume(path, module := Classifier(), late)
    assert trained_state(module) == trained_state(plain)
    assert late.report is not None
    trained = LEEPCallback(source=None)
    with pytest.warns(UserWarning, match="may have been trained for 10 steps already. Pass `source=`"):
        resume(path, Classifier(), trained)
    assert trained.report is None


class LogsAtTheEnd(Classifier):
    """Its accuracy is there after this callback's hook, just before checkpoints are saved."""

    validation_step = pl.LightningModule.validation_step

    def on_train_epoch_end(self):
        self.log("val_acc", torch.tensor(0.1 * (self.current_epoch + 1)))


def test_resumed_in_the_middle_of_an_epoch_and_at_its_end(tmp_path):
    """Each epoch counts once, when it is over; its value is logged by the module's own hook."""
    savers = [pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=7, save_top_k=-1, filename="{step}")]
    savers += [pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)]
    first = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True)
    fit(LogsAtTheEnd(), first, *savers, enable_checkpointing=True)
    for path in (tmp_path / "step=7.ckpt", savers[1].last_model_path):
        callback = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True)
        make_trainer(callback, max_epochs=3).fit(LogsAtTheEnd(), train_loader(), ckpt_path=path)
        assert callback.report == first.report
        assert callback.curve.epochs == (1.0, 2.0, 3.0)
        assert callback.curve.accuracy == pytest.approx((0.1, 0.2, 0.3))


def test_second_fit_scores_again():
    callback = LEEPCallback(source := Counting(), scoring=FEW_SCORES, strict=True)
    trainer = fit(Classifier(), callback)
    first, state = callback.report, callback.state_dict()
    assert source.calls == 5
    trainer.validate(Classifier(), val_loader())  # which is no part of the fit
    assert callback.state_dict() == state
    fit(Classifier(), callback)  # another Trainer
    assert source.calls == 10
    assert callback.report is not first
    assert callback.report.leep == first.leep
    assert callback.curve.epochs == (1.0, 2.0)


def test_second_fit_of_the_same_module_goes_on(tmp_path):
    """The source shares its weights, so that it would now be scored with trained ones."""
    callback = LEEPCallback(source=None, history=tmp_path, scoring=FEW_SCORES, strict=True)
    module = Classifier()
    trainer = fit(module, callback)
    report, forecast, curve, metrics = callback.report, callback.forecast, callback.curve, trainer.callback_metrics
    predicted = float(metrics["leep/predicted_accuracy"])
    trainer.fit(module, train_loader(), val_loader())  # it has trained all its epochs
    assert len(load_history(tmp_path)) == 1
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, train_loader(), val_loader())
    assert callback.report is report
    assert callback.forecast == forecast
    assert callback.curve.epochs == (1.0, 2.0, 3.0, 4.0)
    assert callback.curve.accuracy[:2] == curve.accuracy
    assert float(trainer.callback_metrics["leep/predicted_accuracy"]) == pytest.approx(predicted)
    first, second = load_history(tmp_path)
    assert (first.curve, second.curve) == (curve, callback.curve)
    assert second.report == report
    assert second.wall_seconds[:2] == first.wall_seconds
    assert list(second.wall_seconds) == sorted(second.wall_seconds)


class BreaksOff(Classifier):
    """Fails once, in the first hook of training or in the second epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def fail(self, epoch):
        if self.epoch == epoch:
            self.epoch = None
            raise ArithmeticError

    def on_train_start(self):
        self.fail(epoch=0)

    def on_train_epoch_start(self):
        self.fail(epoch=self.current_epoch or -1)


@pytest.mark.parametrize(("epoch", "calls"), [(0, 10), (1, 5)])
def test_a_fit_that_was_broken_off_goes_on_if_it_had_made_a_step(epoch, calls, tmp_path):
    callback = LEEPCallback(source := Counting(), history=tmp_path, scoring=FEW_SCORES, strict=True)
    module, trainer = BreaksOff(epoch), make_trainer(callback, max_epochs=3)
    with pytest.raises(ArithmeticError):
        trainer.fit(module, train_loader(), val_loader())
    trainer.fit(module, train_loader(), val_loader())
    assert source.calls == calls
    (record,) = load_history(tmp_path)
    assert record.curve.epochs == callback.curve.epochs == (1.0, 2.0, 3.0)


def test_another_module_in_the_same_trainer_is_a_new_transfer(tmp_path):
    callback = LEEPCallback(source=None, history=tmp_path, scoring=FEW_SCORES, strict=True)
    trainer = fit(Classifier(), callback)
    first = callback.report
    trainer.fit_loop.max_epochs = 4
    trainer.fit(Classifier(make_source(3)), train_loader(), val_loader())
    assert callback.report.leep != first.leep
    old, new = load_history(tmp_path)
    assert (old.report, new.report) == (first, callback.report)
    # Its own epochs, whatever the Trainer had done before.
    assert old.curve.epochs == new.curve.epochs == (1.0, 2.0)
    assert new.curve == callback.curve


def test_a_second_fit_from_a_checkpoint_takes_what_the_checkpoint_holds(tmp_path):
    saver = pl.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    callback, module = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True), Classifier()
    trainer = fit(module, callback, saver, enable_checkpointing=True)
    report, curve = callback.report, callback.curve
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, train_loader(), val_loader(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert callback.report == report
    assert callback.curve.epochs == (1.0, 2.0, 3.0)
    assert callback.curve.accuracy[0] == curve.accuracy[0]


@pytest.mark.slow
def test_callbacks_in_one_trainer_have_names_and_keys_of_their_own(tmp_path):
    options = {"scoring": FEW_SCORES, "strict": True}
    callbacks = [LEEPCallback(make_source(seed), **options) for seed in range(3)]
    callbacks.insert(1, LEEPCallback(make_source(4), name="leep_2", **options))
    assert len({callback.state_key for callback in callbacks}) == 4
    trainer = fit(Classifier(), *callbacks)
    assert [callback.log_name for callback in callbacks] == ["leep", "leep_2", "leep_3", "leep_4"]
    for callback in callbacks:
        logged = trainer.callback_metrics[f"{callback.log_name}/predicted_accuracy"]
        assert float(logged) == pytest.approx(callback.forecast.value)
    assert len({callback.report.leep for callback in callbacks}) == 4
    trainer.save_checkpoint(tmp_path / "four.ckpt")
    again = [LEEPCallback(make_source(seed), name=callback.name) for seed, callback in enumerate(callbacks)]
    resume(tmp_path / "four.ckpt", Classifier(), *again)
    assert [callback.report for callback in again] == [callback.report for callback in callbacks]


def test_equal_names_are_refused():
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `LEEPCallback`"):
        make_trainer(LEEPCallback(name="a"), LEEPCallback(name="a"))


def test_nothing_happens_without_fit(recwarn):
    class Complete(Classifier):
        def test_step(self, batch, batch_idx):
            self.log("test_acc", torch.tensor(0.5))

        def predict_step(self, batch, batch_idx):
            return self(batch[0])

    callback = LEEPCallback(source := Counting(), strict=True)
    for task in ("validate", "test", "predict"):
        trainer = make_trainer(callback)
        getattr(trainer, task)(Complete(), val_loader())
        assert (callback.report, source.calls) == (None, 0)
        assert not [name for name in trainer.callback_metrics if name.startswith("leep")]
    assert not [w for w in recwarn if re.search("LEEP", str(w.message))]
