"""`stop_when_hopeless` ends a run that cannot reach a target, on all processes, and says why."""

import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.hopeless import PATIENCE, HopelessRule
from lightning_leep.forecast import RunningForecast
from lightning_leep.forecast.running import MIN_VALIDATIONS
from lightning_leep.records import AccuracyCurve, load_history
from tests._helpers.distributed import run_processes
from tests._helpers.saved_history import save_earlier
from tests._helpers.small_transfer import (
    Classifier,
    fit,
    make_source,
    make_trainer,
    train_loader,
    trained_state,
    val_loader,
)
from tests.callbacks.fit.test_logs import events

EPOCHS = 12


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


def trained(module, target, folder, **kwargs):
    callback = LEEPCallback(make_source(), history=folder / "history", strict=True, stop_when_hopeless=target)
    trainer = fit(module, callback, max_epochs=EPOCHS, **kwargs)
    return callback, trainer


@pytest.mark.parametrize("module", [Stuck, StuckOutsideValidation])
def test_a_hopeless_run_is_stopped_early(module, tmp_path):
    callback, trainer = trained(module(), 0.95, tmp_path)
    assert PATIENCE <= trainer.current_epoch < EPOCHS
    assert trainer.should_stop
    assert max(callback.curve.accuracy) == pytest.approx(0.3)


def test_the_reason_is_logged_and_shown(tmp_path, caplog):
    board = TensorBoardLogger(tmp_path)
    with caplog.at_level("INFO"):
        _, trainer = trained(Stuck(), 0.95, tmp_path, logger=board)
    (message,) = [r.getMessage() for r in caplog.records if "LEEPCallback stops training" in r.getMessage()]
    assert f"After {trainer.current_epoch} epochs" in message
    assert "excludes the 0.95 of `stop_when_hopeless`" in message
    read = events(board.log_dir)
    (text,) = [e.tensor_proto.string_val[0].decode() for e in read.Tensors("leep/stopped/text_summary")]
    assert "excludes the 0.95" in text
    report = read.Tensors("leep/report/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "**Stopped.**" in report
    high = [event.value for event in read.Scalars("leep_running/running_forecast_high")]
    assert f"at {PATIENCE} validations in a row" in message
    assert all(value < 0.95 for value in high[-PATIENCE:])
    assert all(value >= 0.95 for value in high[:-PATIENCE][-1:])


def test_its_record_is_marked_and_teaches_nothing(tmp_path):
    trained(Stuck(), 0.95, tmp_path)
    (record,) = load_history(tmp_path / "history")
    assert not record.complete
    save_earlier(tmp_path / "history", size=8)
    callback, _ = trained(Stuck(), None, tmp_path)
    # 8 complete ones do not suffice; with the incomplete one they would.
    assert callback.forecast.num_records == 0


class Scripted(Stuck):
    """Validations show one given accuracy after the other, the last one again and again."""

    def __init__(self, *levels):
        super().__init__()
        self.levels = levels

    @property
    def level(self):
        return self.levels[min(self.current_epoch, len(self.levels) - 1)]


#: Rises along a cosine until the end, as with a learning rate that is brought down.
LATE = tuple(0.6 - 0.3 * math.cos(math.pi * epoch / EPOCHS) for epoch in range(1, EPOCHS + 1))


def test_a_run_with_hope_goes_on(tmp_path):
    """The target is reached late, and at no validation before is it out of reach; a higher one is."""
    callback, trainer = trained(Scripted(*LATE), 0.85, tmp_path)
    assert callback.curve.epoch_reaching(0.85) == EPOCHS - 2
    assert trainer.current_epoch == len(callback.curve) == EPOCHS
    assert load_history(tmp_path / "history")[0].complete
    _, trainer = trained(Scripted(*LATE[: EPOCHS // 3]), 0.85, tmp_path / "other")
    assert trainer.current_epoch < EPOCHS


@pytest.mark.parametrize("target", [0.2, None])
def test_a_target_that_is_reached_or_not_given_stops_nothing(target, tmp_path):
    callback, _ = trained(Stuck(), target, tmp_path)
    assert len(callback.curve) == EPOCHS
    assert load_history(tmp_path / "history")[0].complete


def test_min_epochs_are_trained_all_the_same(tmp_path):
    """It would have been stopped long before; then it is, at once."""
    _, free = trained(Stuck(), 0.95, tmp_path / "free")
    assert free.current_epoch < EPOCHS - 1
    _, trainer = trained(Stuck(), 0.95, tmp_path, min_epochs=EPOCHS - 1)
    assert trainer.current_epoch == EPOCHS - 1
    assert not load_history(tmp_path / "history")[0].complete


def test_min_steps_are_trained_all_the_same(tmp_path):
    _, trainer = trained(Stuck(), 0.95, tmp_path, min_steps=5 * (EPOCHS - 1))  # 5 batches an epoch
    assert trainer.current_epoch == EPOCHS - 1


def test_a_run_that_recovers_within_min_epochs_goes_on(tmp_path, caplog):
    """Out of reach from the fourth validation to the seventh, reached at the eighth, asked again at the tenth."""
    with caplog.at_level("INFO"):
        callback, trainer = trained(Scripted(*[0.1] * 7, 0.9), 0.8, tmp_path, min_epochs=10)
    assert trainer.current_epoch == EPOCHS
    assert not trainer.should_stop
    assert "LEEPCallback stops" not in caplog.text
    assert load_history(tmp_path / "history")[0].complete
    assert callback.curve.best == pytest.approx(0.9)


def test_a_run_whose_epochs_are_all_wanted_is_complete(tmp_path):
    _, trainer = trained(Stuck(), 0.95, tmp_path, min_epochs=EPOCHS)
    assert trainer.current_epoch == EPOCHS
    assert load_history(tmp_path / "history")[0].complete


def forecast(high, number):
    return RunningForecast(value=0.5, low=0.4, high=high, coverage=0.9, eta_epochs=None, num_validations=number)


@pytest.mark.parametrize(
    ("highs", "stops"),
    [
        ((0.6, 0.6, 0.6, 0.6), [4]),
        ((0.6, 0.6, 0.6, 0.6, 0.5), [4, 5]),  # asked again
        ((0.6, 0.6, 0.6, 0.7, 0.6, 0.6, 0.6, 0.6), [8]),  # counted anew; the end of the interval is still in it
        ((0.7, 0.7, 0.7, 0.7, 0.7), []),
    ],
)
def test_several_validations_in_a_row(highs, stops):
    rule, curve, reasons = HopelessRule(0.7), AccuracyCurve(), []
    assert rule.reason(None, curve) is None
    assert rule.reason(forecast(0.6, 0), curve) is None  # a forecast alone ends no run
    for number, high in enumerate(highs, 1):
        curve = curve.append(number, 0.4)
        reasons.append(rule.reason(forecast(high, number), curve))
        assert rule.reason(forecast(high, number), curve) is None  # no new validation
    assert [number for number, reason in enumerate(reasons, 1) if reason] == stops


def test_many_validations_in_an_epoch_are_no_long_time():
    """Ten in each of 20 epochs: four in a row are over after 0.3 epochs, a tenth of the training is 2 epochs."""
    rule, curve, stops = HopelessRule(0.7), AccuracyCurve(), []
    for number in range(1, 31):
        curve = curve.append(number / 10, 0.4)
        stops.append(rule.reason(forecast(0.6, number), curve, 20) is not None)
    assert stops == [number >= 21 for number in range(1, 31)]


class Unfreezing(pl.callbacks.BaseFinetuning):
    """The callback that unfreezes layers, with nothing to unfreeze."""

    def freeze_before_training(self, pl_module):
        pass

    def finetune_function(self, pl_module, epoch, optimizer):
        pass


def test_unfreezing_cannot_be_foreseen_without_earlier_transfers(tmp_path):
    callback = LEEPCallback(make_source(), history=tmp_path, strict=True, stop_when_hopeless=0.95)
    with pytest.warns(UserWarning, match="will not stop this run.* A callback unfreezes layers") as caught:
        trainer = fit(Stuck(), callback, Unfreezing(), max_epochs=EPOCHS)
    assert len([w for w in caught if "will not stop" in str(w.message)]) == 1
    assert trainer.current_epoch == EPOCHS
    save_earlier(tmp_path, trainable="gradual", epochs=EPOCHS)
    callback = LEEPCallback(make_source(), history=tmp_path, strict=True, stop_when_hopeless=0.95)
    trainer = fit(Stuck(), callback, Unfreezing(), max_epochs=EPOCHS)
    assert trainer.current_epoch < EPOCHS


def test_a_target_without_a_monitor_is_warned_of():
    callback = LEEPCallback(make_source(), None, history=False, strict=True, stop_when_hopeless=0.95)
    with pytest.warns(UserWarning, match="will not stop this run.* Without `monitor`"):
        fit(Stuck(), callback)


def test_from_scratch_the_curve_alone_is_enough(tmp_path):
    callback = LEEPCallback(make_source(), history=tmp_path, strategy="scratch", strict=True, stop_when_hopeless=0.95)
    trainer = fit(Stuck(), callback, max_epochs=EPOCHS)
    assert callback.forecast is None
    assert PATIENCE + MIN_VALIDATIONS - 1 <= trainer.current_epoch < EPOCHS


class StopAfter(pl.Callback):
    """A user who ends training after a number of batches."""

    def __init__(self, batches):
        self.batches = batches

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.batches


@pytest.mark.parametrize(
    ("batches", "options", "complete"),
    [
        (1, {}, False),  # of 5 batches
        (4, {}, False),
        (5, {}, True),
        (7, {}, True),
        (99, {"max_epochs": 1, "max_steps": 2, "val_check_interval": 2}, True),  # that is all that was wanted
        (99, {"overfit_batches": 2}, False),
    ],
)
def test_which_records_are_complete(batches, options, complete, tmp_path):
    callback = LEEPCallback(make_source(), history=tmp_path, strict=True)
    fit(Stuck(), callback, StopAfter(batches), **{"min_epochs": 0, **options})
    (record,) = load_history(tmp_path)
    assert record.complete == complete


@pytest.mark.parametrize(
    ("target", "error"), [(1.2, ValueError), (-0.1, ValueError), ("0.9", TypeError), (True, TypeError)]
)
def test_impossible_target_is_refused(target, error):
    with pytest.raises(error, match="`stop_when_hopeless` must"):
        LEEPCallback(stop_when_hopeless=target)


class StuckOnOne(Stuck):
    """The processes log accuracies of their own: only the first one has reason to stop, or only the second."""

    stuck_rank = 0

    @property
    def level(self):
        return 0.3 if torch.distributed.get_rank() == self.stuck_rank else 0.99


class StuckOnTheOther(StuckOnOne):
    stuck_rank = 1


def two_processes(rank, world_size, folder):
    epochs = []
    for module in (StuckOnOne(), StuckOnTheOther()):
        callback = LEEPCallback(make_source(), history=False, strict=True, stop_when_hopeless=0.95)
        pl.seed_everything(7)
        trainer = make_trainer(callback, strategy="ddp", devices=2, max_epochs=EPOCHS)
        trainer.fit(module, train_loader(), val_loader())
        epochs.append(trainer.current_epoch)
    return epochs, trained_state(module)["weights"]


@pytest.mark.distributed
def test_processes_stop_together_as_the_first_one_decides(tmp_path):
    (first, weights), (second, other) = run_processes(two_processes, 2, str(tmp_path), timeout=100)
    assert first == second
    assert first[0] < EPOCHS
    assert first[1] == EPOCHS
    assert weights == other
