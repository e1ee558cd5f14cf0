"""Two processes: one result, the same training, and no process that waits in vain."""

import warnings
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import Dataset, SubsetRandomSampler

from lightning_leep import LEEPCallback, StopWhenHopeless
from lightning_leep.records import load_history
from tests._helpers.distributed import fork_server, run_processes
from tests._helpers.small_transfer import (
    Classifier,
    D,
    Z,
    fit,
    make_data,
    make_source,
    make_trainer,
    train_loader,
    trained_state,
    val_loader,
)

pytestmark = pytest.mark.distributed

DDP = {"strategy": "ddp", "devices": 2}


class FailsOn(nn.Module):
    """A source that fails on some ranks."""

    def __init__(self, *ranks: int) -> None:
        super().__init__()
        self.layer = nn.Linear(D, Z)
        self.ranks = ranks

    def forward(self, inputs):
        if torch.distributed.get_rank() in self.ranks:
            raise RuntimeError("no memory left here")
        return self.layer(inputs)


class FailsToStart(Dataset):
    """Data that one process cannot even count, before any of them has scored a batch."""

    def __len__(self) -> int:
        if torch.distributed.get_rank() == 1:
            raise OSError("disk not mounted here")
        return 50

    def __getitem__(self, index):
        return make_data()[index]


class StuckOn(Classifier):
    """The processes log accuracies of their own: only one of them has reason to stop."""

    def __init__(self, stuck_rank: int) -> None:
        super().__init__()
        self.stuck_rank = stuck_rank

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", torch.tensor(0.3 if torch.distributed.get_rank() == self.stuck_rank else 0.99))


class WrapperWatch(pl.Callback):
    """Counts the calls of the wrapped module that happen in other callbacks' ``on_train_start``."""

    calls = 0

    def on_train_start(self, trainer, pl_module):
        def count(*args):
            self.calls += 1

        handle = trainer.model.register_forward_pre_hook(count)
        self.handle = handle

    def on_train_epoch_start(self, trainer, pl_module):
        self.handle.remove()


def leep_warnings(caught) -> list[str]:
    return [str(w.message) for w in caught if "LEEPCallback" in str(w.message)]


def everything(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    """All that has to be seen on two processes, in one start of them."""
    seen: dict[str, Any] = {}

    def train(name, *callbacks, loader=None, resume=None, module=None, **kwargs):
        module = module or Classifier()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pl.seed_everything(7, workers=True)
            trainer = make_trainer(*callbacks, **{**DDP, **kwargs})
            try:
                trainer.fit(module, train_loader() if loader is None else loader, val_loader(), ckpt_path=resume)
            except Exception as error:
                seen[f"{name} error"] = f"{type(error).__name__}: {error}"
        seen[name] = trained_state(module)
        seen[f"{name} warnings"] = leep_warnings(caught)
        for callback in callbacks:
            if isinstance(callback, LEEPCallback):
                seen[f"{name} report"] = None if callback.report is None else callback.report.to_dict()

    watch = WrapperWatch()
    saver = pl.callbacks.ModelCheckpoint(folder, save_last=True)
    train("plain")
    train("scored", watch, LEEPCallback(make_source(), strict=True), saver, enable_checkpointing=True)
    seen["wrapper calls"] = watch.calls
    train("resumed", LEEPCallback(FailsOn(0, 1), strict=True), resume=saver.last_model_path, max_epochs=3)
    train("resumed plain", resume=saver.last_model_path, max_epochs=3)
    train("own source", LEEPCallback(strict=True))
    subset = train_loader(shuffle=False, sampler=SubsetRandomSampler(range(21)))
    train("subset", LEEPCallback(make_source(), max_samples=15, strict=True), loader=subset)
    train("subset plain", loader=subset)
    train("three rows", LEEPCallback(make_source(), strict=True, dataloader=train_loader(make_data(3), batch_size=1)))
    train("one process failed", LEEPCallback(FailsOn(1)))
    train("all processes failed", LEEPCallback(FailsOn(0, 1)))
    train("failed to start", LEEPCallback(make_source(), dataloader=train_loader(FailsToStart(), shuffle=False)))
    train("strict", LEEPCallback(FailsOn(1), strict=True))
    own, shared = (LEEPCallback(make_source(3), history=f"{folder}/{name}") for name in (rank, "shared"))
    train("history", own, shared)
    seen["forecasts"], seen["folder"] = (own.forecast, shared.forecast), folder
    for stuck_rank in (0, 1):
        leep, module = LEEPCallback(make_source(), history=False, strict=True), StuckOn(stuck_rank)
        train("hopeless", leep, StopWhenHopeless(0.95), module=module, max_epochs=12, limit_train_batches=1)
        seen[f"epochs with process {stuck_rank} stuck"] = module.trainer.current_epoch
    return seen


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return run_processes(everything, 2, str(tmp_path_factory.mktemp("processes")), timeout=150)


def single_process_report(own_source=False, **kwargs):
    callback = LEEPCallback(None if own_source else make_source(), strict=True, **kwargs)
    fit(Classifier(), callback)
    return callback.report.to_dict()


def scores(report):
    """What depends on the rows alone, not on the time nor on how labels are shuffled."""
    varying = ("seconds", "samples_per_second", "notes", "layers")
    layers = {f"{layer['name']}: {n}": value for layer in report["layers"] for n, value in layer.items()}
    return layers | {n: value for n, value in report.items() if n not in varying and not n.startswith("permutation")}


def assert_same_scores(report, other):
    found, wanted = scores(report), scores(other)
    numbers = {name for name, value in wanted.items() if isinstance(value, float)}
    assert {n: found[n] for n in numbers} == pytest.approx({n: wanted[n] for n in numbers}, rel=1e-6, abs=1e-6)
    assert {n: v for n, v in found.items() if n not in numbers} == {n: v for n, v in wanted.items() if n not in numbers}


def test_two_processes_score_as_one(seen):
    assert scores(seen[0]["scored report"]) == scores(seen[1]["scored report"])
    assert_same_scores(seen[0]["scored report"], single_process_report())
    assert_same_scores(seen[0]["own source report"], single_process_report(own_source=True))


def test_subset_is_the_same_on_any_number_of_processes(seen):
    rows = train_loader(shuffle=False, sampler=SubsetRandomSampler(range(21)))
    assert_same_scores(seen[0]["subset report"], single_process_report(max_samples=15, dataloader=rows))
    assert seen[0]["subset report"]["num_samples"] == 15


def test_no_row_is_repeated_to_fill_up(seen):
    assert [seen[rank]["three rows report"]["num_samples"] for rank in (0, 1)] == [3, 3]


def test_training_is_the_same_with_and_without(seen):
    for rank in (0, 1):
        assert seen[rank]["scored"] == seen[rank]["plain"]
        assert seen[rank]["own source"] == seen[rank]["plain"]
        assert seen[rank]["subset"] == seen[rank]["subset plain"]
        assert seen[rank]["resumed"] == seen[rank]["resumed plain"]
        assert len(seen[rank]["plain"]["losses"]) == 6
    assert seen[0]["plain"]["batches"] != seen[1]["plain"]["batches"]
    assert seen[0]["plain"]["weights"]["head.weight"] == seen[1]["plain"]["weights"]["head.weight"]


def test_wrapper_of_the_module_is_not_called(seen):
    """Its forward pass is a collective: with uneven shares it would wait for ever."""
    assert [seen[rank]["wrapper calls"] for rank in (0, 1)] == [0, 0]


def test_resumed_run_does_not_score(seen):
    for rank in (0, 1):
        assert seen[rank]["resumed report"] == seen[0]["scored report"]
        assert "resumed error" not in seen[rank]


@pytest.mark.parametrize(
    ("name", "rank", "message"),
    [
        ("one process failed", 1, "RuntimeError: no memory left here"),
        ("all processes failed", 0, "RuntimeError: no memory left here"),
        ("failed to start", 1, "OSError: disk not mounted here"),
    ],
)
def test_fault_warns_once_where_it_happened(seen, name, rank, message):
    for other in (0, 1):
        assert seen[other][name] == seen[other]["plain"]
        assert seen[other][f"{name} report"] is None
        assert f"{name} error" not in seen[other]
    (warning,) = seen[rank][f"{name} warnings"]
    assert f"could not score the source model: {message}" in warning
    assert seen[1 - rank][f"{name} warnings"] == []


def test_strict_raises_on_every_process(seen):
    assert seen[1]["strict error"] == "RuntimeError: no memory left here"
    assert seen[0]["strict error"] == "OtherProcessError: Process 1 failed; see the error there."
    assert seen[0]["strict"]["losses"] == []


def test_one_record_is_saved_and_all_agree_on_the_forecast(seen):
    assert seen[0]["forecasts"] == seen[1]["forecasts"]
    assert None not in seen[0]["forecasts"]
    # The second process has a folder of its own, which must stay empty.
    histories = [load_history(f"{seen[0]['folder']}/{name}") for name in ("0", "1", "shared")]
    assert [len(history) for history in histories] == [1, 0, 1]
    assert histories[0][0].test_size == 40


def test_processes_stop_together_as_the_first_one_decides(seen):
    epochs = [[seen[rank][f"epochs with process {stuck} stuck"] for rank in (0, 1)] for stuck in (0, 1)]
    assert epochs[0][0] == epochs[0][1] < 12
    assert epochs[1] == [12, 12]
    assert seen[0]["hopeless"]["weights"] == seen[1]["hopeless"]["weights"]


def test_processes_that_the_trainer_starts_itself():
    """The callback travels to them, and its source still shares its layers with the module."""
    fork_server()  # the Trainer's processes get a pickled callback, as with "spawn", but import nothing again
    source = make_source()
    callback = LEEPCallback(source, strict=True)
    strategy = pl.strategies.DDPStrategy(start_method="forkserver")
    trainer = fit(Classifier(source), callback, strategy=strategy, devices=2, max_epochs=1)
    expected = single_process_report()
    assert trainer.callback_metrics["leep/predicted_accuracy"].item() == pytest.approx(
        expected["multi_layer_probe_accuracy"]
    )
    assert "leep/achieved_accuracy" in trainer.callback_metrics
