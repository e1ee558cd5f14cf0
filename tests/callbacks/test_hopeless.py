"""`StopWhenHopeless` ends a run that cannot reach a target, on all processes, and says why."""

import math

import lightning.pytorch
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_leep import LEEPCallback, StopWhenHopeless
from lightning_leep.forecast.running import MIN_VALIDATIONS
from lightning_leep.records import load_history
from tests._helpers.saved_history import save_earlier
from tests._helpers.small_transfer import (
    Classifier,
    fit,
    make_source,
    make_trainer,
    train_loader,
    val_loader,
)
from tests.callbacks.fit.test_logs import events

pytestmark = pytest.mark.usefixtures("no_forks")
EPOCHS, PATIENCE = 12, 4
SHORT = {"max_epochs": EPOCHS, "limit_train_batches": 1}


class Stuck(Classifier):
    """Learns nothing: one accuracy at every validation."""

    level = 0.3

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", torch.tensor(self.level))


class StuckOutsideValidation(Stuck):
    def validation_step(self, batch, batch_idx):
        pass

    def on_train_epoch_end(self):
        self.log("val_acc", torch.tensor(self.level))


class Scripted(Stuck):
    """Shows one given accuracy after the other, the last one again and again."""

    def __init__(self, *levels):
        super().__init__()
        self.levels = levels

    @property
    def level(self):
        return self.levels[min(self.current_epoch, len(self.levels) - 1)]


def trained(module, target, folder, patience=PATIENCE, last=True, **kwargs):
    leep = LEEPCallback(make_source(), history=folder / "history", strict=True)
    stop = StopWhenHopeless(target, patience)
    callbacks = (leep, stop) if last else (stop, leep)
    return leep, fit(module, *callbacks, **SHORT, **kwargs), stop


@pytest.mark.slow
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("module", [Stuck, StuckOutsideValidation])
def test_a_hopeless_run_is_stopped_early(module, last, tmp_path):
    leep, trainer, stop = trained(module(), 0.95, tmp_path, last=last)
    assert PATIENCE <= trainer.current_epoch < EPOCHS
    # Lightning counts the epoch at whose start it was asked to stop, and trains none of its batches.
    assert stop.reason.startswith(f"After {trainer.global_step} epochs")
    assert max(leep.curve.accuracy) == pytest.approx(0.3)
    (record,) = load_history(tmp_path / "history")
    assert not record.complete


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("patience", [1, 4, 6])
def test_the_end_of_the_interval_was_below_the_target_as_often_as_asked(patience, tmp_path, caplog):
    board = TensorBoardLogger(tmp_path)
    with caplog.at_level("INFO"):
        _, _, stop = trained(Stuck(), 0.95, tmp_path, patience, logger=board)
    (message,) = [r.getMessage() for r in caplog.records if "StopWhenHopeless ends training" in r.getMessage()]
    assert stop.reason in message
    assert f"at {patience} validations in a row" in message
    read = events(board.log_dir)
    high = [event.value for event in read.Scalars("leep/running_high")]
    assert all(value < 0.95 for value in high[-patience:])
    assert all(value >= 0.95 for value in high[:-patience][-1:])
    report = read.Tensors("leep/report/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert f"**Stopped.** {stop.reason}" in report


@pytest.mark.slow
def test_a_record_that_was_cut_short_teaches_nothing(tmp_path):
    trained(Stuck(), 0.95, tmp_path)
    save_earlier(tmp_path / "history", size=8)
    leep = LEEPCallback(make_source(), history=tmp_path / "history", strict=True)
    fit(Stuck(), leep)
    # 8 complete ones do not suffice; with the incomplete one they would.
    assert leep.forecast.num_records == 0


#: Rises along a cosine until the end, as with a learning rate that is decayed.
LATE = tuple(0.6 - 0.3 * math.cos(math.pi * epoch / EPOCHS) for epoch in range(1, EPOCHS + 1))


@pytest.mark.slow
def test_a_run_with_hope_goes_on(tmp_path):
    """The target is reached late, and at no validation before is it out of reach; a higher one is."""
    leep, trainer, _ = trained(Scripted(*LATE), 0.85, tmp_path)
    assert leep.curve.epoch_reaching(0.85) == EPOCHS - 2
    assert trainer.current_epoch == len(leep.curve) == EPOCHS
    assert load_history(tmp_path / "history")[0].complete
    _, trainer, _ = trained(Scripted(*LATE[: EPOCHS // 3]), 0.85, tmp_path / "other")
    assert trainer.current_epoch < EPOCHS


@pytest.mark.slow
def test_a_target_that_is_reached_exactly_is_not_out_of_reach(tmp_path):
    """What is logged is float32, in which 0.3 is less than 0.3 and the interval ends at what was reached."""
    _, trainer, stop = trained(Stuck(), 0.3, tmp_path, patience=1)
    assert (trainer.current_epoch, stop.reason) == (EPOCHS, "")


def test_one_validation_within_reach_starts_the_count_anew():
    trainer = make_trainer()
    stop, asked = StopWhenHopeless(0.7), []
    for high in (0.6, 0.6, 0.6, 0.7, 0.6, 0.6, 0.6, 0.6):
        trainer.callback_metrics["leep/running_high"] = torch.tensor(high)
        for _ in range(2):  # the second time it is no new value
            stop.on_train_epoch_start(trainer, None)
            asked.append(trainer.should_stop)
    assert asked == [False] * 14 + [True] * 2


@pytest.mark.slow
@pytest.mark.parametrize("option", [{"min_epochs": EPOCHS - 1}, {"min_steps": EPOCHS - 1}])
def test_what_must_be_trained_is_trained(option, tmp_path):
    """It would have been stopped long before; then it is, at once."""
    _, trainer, _ = trained(Stuck(), 0.95, tmp_path, **option)
    assert trainer.current_epoch == EPOCHS - 1
    assert not load_history(tmp_path / "history")[0].complete


@pytest.mark.slow
def test_a_run_that_recovers_within_min_epochs_goes_on(tmp_path):
    """Out of reach from the fourth validation to the seventh, reached at the eighth."""
    leep, trainer, stop = trained(Scripted(*[0.1] * 7, 0.9), 0.8, tmp_path, min_epochs=10)
    assert (trainer.current_epoch, stop.reason) == (EPOCHS, "")
    assert load_history(tmp_path / "history")[0].complete
    assert leep.curve.best == pytest.approx(0.9)


@pytest.mark.slow
def test_a_run_whose_epochs_are_all_wanted_is_complete(tmp_path):
    _, trainer, stop = trained(Stuck(), 0.95, tmp_path, min_epochs=EPOCHS)
    assert (trainer.current_epoch, stop.reason) == (EPOCHS, "")
    assert load_history(tmp_path / "history")[0].complete


def test_early_stopping_that_came_first_is_not_cut_short(tmp_path):
    stopper = pl.callbacks.EarlyStopping("val_acc", patience=1, mode="max")
    leep = LEEPCallback(make_source(), history=tmp_path, strict=True)
    trainer = fit(Stuck(), stopper, leep, StopWhenHopeless(0.95, 1), min_epochs=EPOCHS // 2, **SHORT)
    assert trainer.current_epoch == EPOCHS // 2
    assert load_history(tmp_path)[0].complete


def test_from_scratch_the_curve_alone_is_enough(tmp_path):
    leep = LEEPCallback(make_source(), history=tmp_path, trainable="scratch", strict=True)
    trainer = fit(Stuck(), leep, StopWhenHopeless(0.95), **SHORT)
    assert leep.forecast is None
    assert PATIENCE + MIN_VALIDATIONS - 1 <= trainer.current_epoch < EPOCHS


@pytest.mark.parametrize(
    ("monitor", "tag"), [(None, "leep/running_high"), ("val_acc", "leap/running_high")], ids=["no monitor", "other tag"]
)
def test_a_tag_that_never_appears_is_warned_of_once(monitor, tag):
    leep = LEEPCallback(make_source(), monitor, history=False, strict=True)
    with pytest.warns(UserWarning, match=f"never saw `monitor='{tag}'`") as caught:
        fit(Stuck(), leep, StopWhenHopeless(0.95, monitor=tag))
    assert len([w for w in caught if "StopWhenHopeless" in str(w.message)]) == 1


@pytest.mark.slow
def test_of_several_callbacks_it_follows_the_one_that_it_is_told(tmp_path):
    other = LEEPCallback(make_source(), None, history=False, strict=True)  # which has no running forecast
    leep = LEEPCallback(make_source(), history=False, strict=True)
    stop = StopWhenHopeless(0.95, monitor="leep_2/running_high")
    trainer = fit(Stuck(), other, leep, stop, **SHORT)
    assert trainer.current_epoch < EPOCHS


@pytest.mark.slow
def test_a_second_fit_counts_anew(tmp_path):
    _, trainer, stop = trained(Stuck(), 0.95, tmp_path)
    first, stop.target = trainer.current_epoch, 0.2
    trainer.should_stop = False
    trainer.fit(Stuck(), train_loader(), val_loader())
    assert first < trainer.current_epoch == EPOCHS
    assert stop.reason == ""


def test_trainers_of_both_packages_take_it_alone():
    for package in (pl, lightning.pytorch):
        stop = StopWhenHopeless(0.9)
        trainer = package.Trainer(callbacks=stop, logger=False, accelerator="cpu", enable_checkpointing=False)
        assert stop in trainer.callbacks


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"target": 1.2}, ValueError),
        ({"target": "0.9"}, TypeError),
        ({"target": True}, TypeError),
        ({"target": 0.9, "patience": 0}, ValueError),
        ({"target": 0.9, "patience": 2.0}, TypeError),
        ({"target": 0.9, "monitor": ""}, ValueError),
    ],
)
def test_impossible_arguments_are_refused(arguments, error):
    with pytest.raises(error, match=f"`{list(arguments)[-1]}` must"):
        StopWhenHopeless(**arguments)
