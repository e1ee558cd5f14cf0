"""A fault warns once and changes nothing; `strict=True` raises it."""

import re
import sys
import warnings

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from lightning_leep import LEEPCallback
from lightning_leep.records import load_history
from tests._helpers.compared_training import plain_state
from tests._helpers.logged import Recording, events
from tests._helpers.small_transfer import FEW_SCORES, Classifier, fit, make_source, train_loader, trained_state


class BrokenError(Exception):
    pass


class Failing(nn.Module):
    """A source that consumes random numbers, switches modes and then fails."""

    def __init__(self, error: type[BaseException] = BrokenError) -> None:
        super().__init__()
        self.network = make_source()
        self.error = error

    def forward(self, inputs):
        torch.rand(3)
        self.network.train()
        self.network(inputs)
        raise self.error("no such image")


class FailingData(torch.utils.data.Dataset):
    classes = ("a", "b", "c")

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index):
        raise BrokenError("unreadable file")


SCORING_FAULTS = {
    "source": ({"source": Failing()}, "no such image"),
    "data": ({"source": make_source(), "dataloader": train_loader(FailingData())}, "unreadable file"),
    "labels": ({"source": make_source(), "num_target_classes": 2}, "must hold labels in 0..1"),
}


def leep_warnings(recwarn) -> list[str]:
    return [str(w.message) for w in recwarn if "LEEPCallback" in str(w.message)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORING_FAULTS)
def test_fault_in_scoring(name, recwarn):
    """A source that fails shares its layers with the module, and has changed their modes."""
    arguments, message = SCORING_FAULTS[name]
    callback = LEEPCallback(**arguments)
    module = Classifier(arguments["source"].network if name == "source" else None)
    trainer = fit(module, callback)
    assert trained_state(module) == plain_state()
    assert callback.report is None
    assert not [metric for metric in trainer.callback_metrics if metric.startswith("leep")]
    (warning,) = leep_warnings(recwarn)
    assert re.search(f"^LEEPCallback could not score the source model: .*{message}", warning)
    assert "See the arguments of LEEPCallback" in warning
    assert warning.endswith("Training goes on.")
    fit(Classifier(), callback)  # every fit warns anew
    assert len(leep_warnings(recwarn)) == 2
    with pytest.raises(Exception, match=message):
        fit(Classifier(), LEEPCallback(**arguments, strict=True))


def test_keyboard_interrupt_passes():
    with pytest.raises(SystemExit):  # Lightning's answer to it
        fit(Classifier(), LEEPCallback(Failing(KeyboardInterrupt)))


class FailingLogger(Recording):
    def log_metrics(self, metrics, step=None):
        if any(tag.startswith("leep") for tag in metrics):
            raise BrokenError("disk full")
        super().log_metrics(metrics, step)


def test_logger_that_fails(recwarn):
    failing, working = FailingLogger(), Recording()
    callback = LEEPCallback(make_source(), scoring=FEW_SCORES)
    fit(Classifier(), callback, logger=[failing, working], log_every_n_steps=1)
    (warning,) = leep_warnings(recwarn)
    assert re.search("could not log to FailingLogger: BrokenError: disk full.*`trainer.callback_metrics`", warning)
    assert [v for _, v in working.of("leep/achieved_accuracy")] == list(callback.curve.accuracy)
    assert len(failing.of("val_acc")) == 2


@pytest.mark.slow
def test_without_matplotlib(tmp_path, monkeypatch, recwarn):
    for module in ("matplotlib", "matplotlib.style", "matplotlib.backends", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    board = TensorBoardLogger(tmp_path)
    callback = LEEPCallback(make_source())
    fit(Classifier(), callback, logger=board, log_every_n_steps=1)
    (warning,) = leep_warnings(recwarn)
    assert re.search(r'could not draw figures: .*pip install "lightning-leep\[figures\]"', warning)
    read = events(board.log_dir)
    assert len(read.Scalars("leep/achieved_accuracy")) == 2
    assert "leep/report/text_summary" in read.Tags()["tensors"]


class Interrupted(Classifier):
    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            raise BrokenError("out of memory")


@pytest.mark.slow
def test_run_that_breaks_off_shows_how_far_it_came_and_leaves_no_record(tmp_path, monkeypatch):
    """And its own error, even if the callback is strict and fails then."""

    def broken(*args):
        raise ArithmeticError

    monkeypatch.setattr("lightning_leep.callbacks.fit.watch.outcome_of", broken)
    board, history = TensorBoardLogger(tmp_path), tmp_path / "history"
    callback = LEEPCallback(make_source(), history=history, strict=True)
    with pytest.raises(BrokenError, match="out of memory"):
        fit(Interrupted(), callback, logger=board, log_every_n_steps=1)
    assert callback.curve.epochs == (1.0,)
    assert "leep/predicted_vs_achieved" in events(board.log_dir).Tags()["images"]
    assert len(load_history(history)) == 0


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a message")


HOOKS = ("setup", "on_train_start", "on_before_optimizer_step", "on_validation_start", "on_validation_end")
HOOKS += ("on_train_epoch_start", "on_train_epoch_end", "on_train_end", "state_dict")
#: Parts of `lightning_leep.callbacks` that are broken at once, and what could not be done then.
BROKEN_PARTS = {
    "in every hook": (
        [
            "leep.leep_callbacks",
            "leep.TransferWatch.start",
            "leep.TransferWatch.start_validation",
            "leep.TransferWatch.end_validation",
            "leep.TransferWatch.start_epoch",
            "leep.TransferWatch.end_epoch",
            "leep.TransferWatch.end",
            "leep.RecordKeeper.save",
            "fit.state.FitState.to_dict",
            "fit.state.TrainedPart.see_gradients",
            "fit.state.TrainedPart.look",
        ],
        [*(f"do its part in `{hook}`" for hook in HOOKS), "see what is trained", "use the history of transfers"],
    ),
    "before training": (
        ["leep.RunLogs", "leep.SourceScorer.run"],
        ["do its part in `on_fit_start`", "score the source model"],
    ),
    "in the forecast": (
        ["leep.TrainerFacts.of", "leep.look_ahead"],
        ["read what the Trainer plans", "do its part in `on_train_start`"],
    ),
    "in what is written down": (
        ["fit.watch.TransferRecord", "fit.logs.report_markdown"],
        ["log the report", "log how the run came out", "use the history of transfers"],
    ),
}


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures", "no_forks")
@pytest.mark.parametrize(
    ("name", "errors"), [*((name, False) for name in BROKEN_PARTS), ("in every hook", True), ("before training", True)]
)
def test_fault_anywhere_in_a_hook(name, errors, monkeypatch, tmp_path, caplog):
    """Even one that cannot be printed, and where a warning is an error."""

    def broken(*args, **kwargs):
        raise UnprintableError

    module, callback = Classifier(), LEEPCallback(make_source(), scoring=FEW_SCORES)
    saver = pl.callbacks.ModelCheckpoint(tmp_path / "saved", save_last=True)
    parts, tasks = BROKEN_PARTS[name]
    with monkeypatch.context() as patch, warnings.catch_warnings(record=not errors) as caught:
        for part in parts:
            patch.setattr(f"lightning_leep.callbacks.{part}", broken)
        warnings.simplefilter("error" if errors else "always", UserWarning)
        warnings.simplefilter("ignore", PossibleUserWarning)  # which Lightning gives anyway
        fit(module, callback, saver, enable_checkpointing=True, logger=TensorBoardLogger(tmp_path))
    said = [record.getMessage() for record in caplog.records] if errors else [str(w.message) for w in caught]
    said = [text for text in said if text.startswith("LEEPCallback could not")]
    assert {text.partition(":")[0].removeprefix("LEEPCallback could not ") for text in said} >= set(tasks)
    assert len(said) == len(set(said))
    assert all("UnprintableError. " in text for text in said)
    assert trained_state(module) == plain_state()
    if name == "in every hook":  # what is trained is not known, and of "all" the interval is wide
        assert callback.forecast.trainable == "all"
