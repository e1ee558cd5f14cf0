"""`stop_when_hopeless` ends a run that cannot reach a target, on all processes, and says why."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.forecasting import Outlook, reason_to_stop
from lightning_leep.forecast import AccuracyCurve, RunningForecast, load_history
from tests.callbacks.earlier import save_earlier
from tests.callbacks.support import Classifier, fit, make_source, make_trainer, train_loader, trained_state, val_loader
from tests.callbacks.test_logging import events
from tests.distributed import run_processes

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
    assert 1 <= trainer.current_epoch < EPOCHS
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
    assert high[-1] < 0.95
    assert all(value >= 0.95 for value in high[:-1])


def test_its_record_is_marked_and_teaches_nothing(tmp_path):
    trained(Stuck(), 0.95, tmp_path)
    (record,) = load_history(tmp_path / "history")
    assert not record.complete
    save_earlier(tmp_path / "history", size=8)
    callback, _ = trained(Stuck(), None, tmp_path)
    # 8 complete ones do not suffice; with the incomplete one they would.
    assert callback.forecast.num_records == 0


@pytest.mark.parametrize(("module", "target"), [(Stuck, 0.2), (Stuck, None), (Classifier, 0.0)])
def test_a_run_with_hope_goes_on(module, target, tmp_path):
    callback, trainer = trained(module(), target, tmp_path)
    assert trainer.current_epoch == EPOCHS
    assert len(callback.curve) == EPOCHS
    assert load_history(tmp_path / "history")[0].complete


def test_min_epochs_are_trained_all_the_same(tmp_path):
    _, trainer = trained(Stuck(), 0.95, tmp_path, min_epochs=EPOCHS - 1)
    assert trainer.current_epoch == EPOCHS - 1


RUNNING = RunningForecast(value=0.5, low=0.4, high=0.6, coverage=0.9, eta_epochs=None, num_validations=1)
CURVE = AccuracyCurve((1, 2), (0.3, 0.4))


@pytest.mark.parametrize(
    ("running", "curve", "max_epochs", "target", "stops"),
    [
        (RUNNING, CURVE, 5, 0.61, True),
        (RUNNING, CURVE, None, 0.61, True),
        (RUNNING, CURVE, 5, 0.6, False),  # the end of the interval is still in it
        (RUNNING, CURVE, 2, 0.61, False),  # the run is over anyway
        (RUNNING, AccuracyCurve(), 5, 0.61, False),  # a forecast alone ends no run
        (None, CURVE, 5, 0.61, False),
    ],
)
def test_when_to_stop(running, curve, max_epochs, target, stops):
    reason = reason_to_stop(running, curve, Outlook(strategy="head", max_epochs=max_epochs), target)
    assert (reason is not None) == stops


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
