"""`StopWhenHopeless` ends a run that cannot reach a target, on all processes, and says why."""

import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_leep import LEEPCallback, StopWhenHopeless
from lightning_leep.forecast.running import MIN_VALIDATIONS
from lightning_leep.records import load_history
from tests._helpers.logged import events
from tests._helpers.small_transfer import Scripted, fit, make_source, make_trainer, train_loader, val_loader

pytestmark = pytest.mark.usefixtures("no_forks")
EPOCHS, PATIENCE = 12, 4
SHORT = {"max_epochs": EPOCHS, "limit_train_batches": 1, "limit_val_batches": 1}


class Stuck(Scripted):
    """Learns nothing: one accuracy at every validation."""

    def __init__(self) -> None:
        super().__init__(0.3)


class StuckOutsideValidation(Stuck):
    def validation_step(self, batch, batch_idx):
        pass

    def on_train_epoch_end(self):
        self.log("val_acc", self.level)


def trained(module, target, folder, patience=PATIENCE, last=True, **kwargs):
    leep = LEEPCallback(make_source(), history=folder / "history", strict=True)
    stop = StopWhenHopeless(target, patience)
    callbacks = (leep, stop) if last else (stop, leep)
    return leep, fit(module, *callbacks, **SHORT, **kwargs), stop


@pytest.mark.slow
@pytest.mark.parametrize(("module", "last"), [(Stuck, False), (StuckOutsideValidation, True)])
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
def test_the_end_of_the_interval_was_below_the_target_as_often_as_asked(tmp_path, caplog):
    patience = 6
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


#: Rises along a cosine until the end, as with a learning rate that is decayed.
LATE = tuple(0.6 - 0.3 * math.cos(math.pi * epoch / EPOCHS) for epoch in range(1, EPOCHS + 1))


@pytest.mark.slow
def test_a_run_with_hope_goes_on(tmp_path):
    """The target is reached late, and at no validation before is it out of reach."""
    leep, trainer, _ = trained(Scripted(*LATE), 0.85, tmp_path)
    assert leep.curve.epoch_reaching(0.85) == EPOCHS - 2
    assert trainer.current_epoch == len(leep.curve) == EPOCHS
    assert load_history(tmp_path / "history")[0].complete


def asked_to_stop(highs, **options):
    """The first of these ends of the interval after which a Trainer is asked to stop; nothing is trained."""
    trainer, stop = make_trainer(**options), StopWhenHopeless(0.7)
    asked = []
    for high in highs:
        trainer.callback_metrics["leep/running_high"] = torch.tensor(high)
        for _ in range(2):  # the second time it is no new value
            stop.on_train_epoch_start(trainer, None)
        asked.append(trainer.should_stop)
    return asked


def test_one_validation_within_reach_starts_the_count_anew():
    """What is logged is float32, in which 0.7 is less than 0.7."""
    assert asked_to_stop((0.6, 0.6, 0.6, 0.7, 0.6, 0.6, 0.6, 0.6)) == [False] * 7 + [True]


@pytest.mark.parametrize("option", ["min_epochs", "min_steps"])
def test_what_must_be_trained_is_trained_first(option):
    assert asked_to_stop([0.6] * 6, **{option: 1}) == [False] * 6


@pytest.mark.slow
@pytest.mark.parametrize(("wanted", "complete"), [(EPOCHS - 1, False), (EPOCHS, True)])
def test_a_run_whose_epochs_are_all_wanted_is_complete(wanted, complete, tmp_path):
    """It would have been stopped long before; then it is, at once."""
    _, trainer, stop = trained(Stuck(), 0.95, tmp_path, min_epochs=wanted)
    assert trainer.current_epoch == wanted
    assert (stop.reason == "") == complete == load_history(tmp_path / "history")[0].complete


def test_early_stopping_that_came_first_is_not_cut_short(tmp_path):
    stopper = pl.callbacks.EarlyStopping("val_acc", patience=1, mode="max")
    leep = LEEPCallback(make_source(), history=tmp_path, strict=True)
    trainer = fit(Stuck(), stopper, leep, StopWhenHopeless(0.95, 1), min_epochs=EPOCHS // 2, **SHORT)
    assert trainer.current_epoch == EPOCHS // 2
    assert load_history(tmp_path)[0].complete


def test_from_scratch_the_curve_alone_is_enough(tmp_path):
    """The callback follows, of several, the one that it is told."""
    other = LEEPCallback(make_source(), None, history=False, strict=True)  # which has no running forecast
    leep = LEEPCallback(make_source(), history=tmp_path, trainable="scratch", strict=True)
    trainer = fit(Stuck(), other, leep, StopWhenHopeless(0.95, monitor="leep_2/running_high"), **SHORT)
    assert leep.forecast is None
    assert PATIENCE + MIN_VALIDATIONS - 1 <= trainer.current_epoch < EPOCHS


def test_a_tag_that_never_appears_is_warned_of_once():
    leep = LEEPCallback(make_source(), None, history=False, strict=True)
    with pytest.warns(UserWarning, match="never saw `monitor='leep/running_high'`") as caught:
        fit(Stuck(), leep, StopWhenHopeless(0.95))
    assert len([w for w in caught if "StopWhenHopeless" in str(w.message)]) == 1


@pytest.mark.slow
def test_a_second_fit_counts_anew(tmp_path):
    _, trainer, stop = trained(Stuck(), 0.95, tmp_path)
    first, stop.target = trainer.current_epoch, 0.2
    trainer.should_stop = False
    trainer.fit(Stuck(), train_loader(), val_loader())
    assert first < trainer.current_epoch == EPOCHS
    assert stop.reason == ""


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
