"""A fault warns once and changes nothing; `strict=True` raises it."""

import gc
import re
import sys
import time
import warnings

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from lightning_leep import LEEPCallback, ScoringOptions
from tests._helpers.compared_training import plain_state
from tests._helpers.small_transfer import (
    FEW_SCORES,
    Classifier,
    D,
    Z,
    fit,
    make_data,
    make_source,
    train_loader,
    trained_state,
)
from tests.callbacks.fit.test_logs import Recording, events


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


def not_finite(inputs):
    return torch.full((len(inputs), Z), torch.nan)


class FailingData(torch.utils.data.Dataset):
    classes = ("a", "b", "c")

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index):
        raise BrokenError("unreadable file")


SCORING_FAULTS = {
    "source": ({"source": Failing()}, "no such image"),
    "values": ({"source": not_finite}, "must hold finite logits"),
    "data": ({"source": make_source(), "dataloader": train_loader(FailingData())}, "unreadable file"),
    "labels": ({"source": make_source(), "num_target_classes": 2}, "must hold labels in 0..1"),
    "shape": ({"source": nn.Linear(D + 1, Z)}, "shapes cannot be multiplied"),
    "batch": (
        {"source": make_source(), "scoring": ScoringOptions(split_batch=lambda batch: batch[7])},
        "list index out of range",
    ),
}


def leep_warnings(recwarn) -> list[str]:
    return [str(w.message) for w in recwarn if "LEEPCallback" in str(w.message)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORING_FAULTS)
def test_fault_in_scoring(name, recwarn):
    arguments, message = SCORING_FAULTS[name]
    callback = LEEPCallback(**arguments)
    module = Classifier()
    trainer = fit(module, callback)
    assert trained_state(module) == plain_state()
    assert callback.report is None
    assert not [metric for metric in trainer.callback_metrics if metric.startswith("leep")]
    (warning,) = leep_warnings(recwarn)
    assert re.search(f"^LEEPCallback could not score the source model: .*{message}", warning)
    assert "See the arguments of LEEPCallback" in warning
    assert warning.endswith("Training goes on.")
    start = time.monotonic()
    gc.collect()  # finds no process of the loader that has to be waited for
    assert time.monotonic() - start < 4
    with pytest.raises(Exception, match=message):
        fit(Classifier(), LEEPCallback(**arguments, strict=True))


def test_shared_source_that_fails_is_left_as_it_was(recwarn):
    """The failing source shares its layers with the module, and its modes were changed when it failed."""
    failing = Failing()
    module = Classifier(failing.network)
    fit(module, LEEPCallback(failing))
    assert trained_state(module) == plain_state()
    assert len(leep_warnings(recwarn)) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_keyboard_interrupt_passes(strict):
    with pytest.raises(SystemExit):  # Lightning's answer to it
        fit(Classifier(), LEEPCallback(Failing(KeyboardInterrupt), strict=strict))


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
    with pytest.raises(BrokenError):
        fit(
            Classifier(),
            LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True),
            logger=FailingLogger(),
            log_every_n_steps=1,
        )


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
    with pytest.raises(ImportError, match="lightning-leep"):
        fit(Classifier(), LEEPCallback(make_source(), strict=True), logger=TensorBoardLogger(tmp_path))


class Interrupted(Classifier):
    def on_train_epoch_start(self):
        if self.current_epoch == 2:
            raise BrokenError("out of memory")


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_run_that_breaks_off_shows_how_far_it_came(strict, tmp_path):
    board = TensorBoardLogger(tmp_path)
    callback = LEEPCallback(make_source(), strict=strict)
    with pytest.raises(BrokenError, match="out of memory"):
        fit(Interrupted(), callback, logger=board, log_every_n_steps=1, max_epochs=3)
    assert callback.curve.epochs == (1.0, 2.0)
    read = events(board.log_dir)
    assert "leep/predicted_vs_achieved" in read.Tags()["images"]


def test_every_fit_warns_anew():
    callback = LEEPCallback(Failing())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Classifier(), callback)
        fit(Classifier(), callback)
    assert len(leep_warnings(caught)) == 2


def test_one_row_is_too_few():
    loader = train_loader(torch.utils.data.TensorDataset(make_data().tensors[0][:1], torch.zeros(1).long()))
    with pytest.raises(ValueError, match="at least 2 labelled rows, got 1"):
        fit(Classifier(), LEEPCallback(make_source(), strict=True, dataloader=loader))


@pytest.mark.slow
def test_fault_in_what_is_written_down(monkeypatch, recwarn):
    """Not even an error in the library's own words may end a run."""

    def broken(*args, **kwargs):
        raise BrokenError("no words")

    monkeypatch.setattr("lightning_leep.callbacks.fit.logs.report_markdown", broken)
    callback = LEEPCallback(make_source())
    fit(module := Classifier(), callback)
    assert trained_state(module) == plain_state()
    tasks = [warning.split(":")[0] for warning in leep_warnings(recwarn)]
    assert tasks == ["LEEPCallback could not log the report", "LEEPCallback could not log how the run came out"]
    with pytest.raises(BrokenError):
        fit(Classifier(), LEEPCallback(make_source(), strict=True))


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a message")


PARTS_OF_HOOKS = [
    "leep.leep_callbacks",
    "leep.RunLogs",
    "leep.RunLogs.transfer",
    "fit.watch.TransferRecord",
    "leep.SourceScorer.run",
    "leep.TrainerFacts.of",
    "leep.look_ahead",
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
]


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures", "no_forks")
@pytest.mark.parametrize(
    ("part", "errors"),
    [*((part, False) for part in PARTS_OF_HOOKS), ("leep.SourceScorer.run", True), ("leep.TransferWatch.end", True)],
)
def test_fault_anywhere_in_a_hook(part, errors, monkeypatch, tmp_path, caplog):
    """Even one that cannot be printed, and where a warning is an error."""

    def broken(*args, **kwargs):
        raise UnprintableError

    module, callback = Classifier(), LEEPCallback(make_source(), scoring=FEW_SCORES)
    saver = pl.callbacks.ModelCheckpoint(tmp_path / "saved", save_last=True)
    with monkeypatch.context() as patch, warnings.catch_warnings(record=not errors) as caught:
        patch.setattr(f"lightning_leep.callbacks.{part}", broken)
        warnings.simplefilter("error" if errors else "always", UserWarning)
        warnings.simplefilter("ignore", PossibleUserWarning)  # which Lightning gives anyway
        fit(module, callback, saver, enable_checkpointing=True, logger=TensorBoardLogger(tmp_path))
    said = [record.getMessage() for record in caplog.records] if errors else [str(w.message) for w in caught]
    assert any("LEEPCallback could not" in text and "UnprintableError. " in text for text in said)
    assert trained_state(module) == plain_state()
