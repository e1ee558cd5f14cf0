"""Fits on two processes: everything that has to be seen of them, in one start."""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler

from lightning_leep import LayerTransfer, LEEPCallback, StopWhenHopeless
from tests._helpers.block_networks import Network, Tuned
from tests._helpers.small_transfer import (
    DATA,
    FEW_SCORES,
    Classifier,
    D,
    Stream,
    Z,
    make_data,
    make_source,
    make_trainer,
    train_loader,
    trained_state,
    val_loader,
)

SECOND_PASS = replace(FEW_SCORES, memory="second_pass")
DDP = {"strategy": "ddp", "devices": 2}


class FailsOn(nn.Module):
    """A source that fails on some ranks."""

    def __init__(self, *ranks: int) -> None:
        super().__init__()
        self.layer = nn.Linear(D, Z)
        self.ranks = ranks

    def forward(self, inputs):
        if torch.distributed.get_rank() in self.ranks:
            raise RuntimeError(f"no memory left on {self.ranks}")
        return self.layer(inputs)


class FailsToStart(Dataset):
    """Data that one process cannot even count, before any of them has scored a batch."""

    def __len__(self) -> int:
        if torch.distributed.get_rank() == 1:
            raise OSError("disk not mounted here")
        return 50

    def __getitem__(self, index):
        return make_data()[index]


def batches():
    return list(zip(*(tensor.split(20) for tensor in DATA.tensors), strict=True))


def sorted_by_process() -> list[int]:
    """Rows of which one process scores class 2 alone, and the other one the classes 0 and 1."""
    labels = DATA.tensors[1]
    others, last = (labels < 2).nonzero().flatten(), (labels == 2).nonzero().flatten()
    return torch.stack([others[: len(last)], last[: len(others)]], dim=1).flatten().tolist()


def silent_module() -> Classifier:
    """A module that does not say how many classes it learns."""
    module = Classifier()
    del module.num_classes
    return module


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


def callbacks_that_score(source: nn.Module, folder: str, rank: int) -> dict[str, LEEPCallback]:
    """All of them in one Trainer; ``source`` shares its layers with the module."""

    def make(source, **kwargs):
        return LEEPCallback(source, strict=True, **{"history": False, "scoring": FEW_SCORES, **kwargs})

    return {
        "scored": make(make_source(), scoring=None, history=f"{folder}/{rank}"),
        "own source": make(None),
        "function": make(lambda inputs: source(inputs)),
        "partial, own weights": make(partial(make_source())),
        "three rows": make(make_source(), dataloader=train_loader(make_data(3), batch_size=1)),
        "list of batches": make(make_source(), dataloader=batches()),
        "one batch": make(make_source(), dataloader=[tuple(DATA.tensors)]),
        "stream": make(make_source(), dataloader=DataLoader(Stream(), batch_size=10)),
    }


def everything(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    """All that has to be seen on two processes, in one start of them."""
    seen: dict[str, Any] = {"folder": folder}

    def train(name, callbacks, *others, module=None, loader=None, resume=None, **kwargs):
        module = module or Classifier()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pl.seed_everything(7, workers=True)
            trainer = make_trainer(*others, *callbacks.values(), **{**DDP, **kwargs})
            try:
                trainer.fit(module, train_loader() if loader is None else loader, val_loader(), ckpt_path=resume)
            except Exception as error:
                seen[f"{name} error"] = f"{type(error).__name__}: {error}"
        seen[name] = trained_state(module)
        seen[f"{name} warnings"] = leep_warnings(caught)
        seen[f"{name} epochs"] = trainer.current_epoch
        for key, callback in callbacks.items():
            seen[f"{key} report"] = None if callback.report is None else callback.report.to_dict()
            seen[f"{key} forecast"] = callback.forecast

    watch = WrapperWatch()
    saver = pl.callbacks.ModelCheckpoint(folder, save_last=True)
    train("plain", {})
    module = Classifier()
    scored = callbacks_that_score(module.source[0], folder, rank)
    train("with callbacks", scored, watch, saver, module=module, enable_checkpointing=True)
    seen["wrapper calls"] = watch.calls
    resumed = {"resumed": LEEPCallback(FailsOn(0, 1), strict=True)}
    train("resumed", resumed, resume=saver.last_model_path, max_epochs=3)
    train("resumed plain", {}, resume=saver.last_model_path, max_epochs=3)
    subset = train_loader(shuffle=False, sampler=SubsetRandomSampler(range(21)))
    train(
        "subset",
        {"subset": LEEPCallback(make_source(), max_samples=15, scoring=FEW_SCORES, strict=True)},
        loader=subset,
    )
    apart = {
        "classes apart": LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True),
        "classes apart, second pass": LEEPCallback(make_source(), scoring=SECOND_PASS, strict=True),
    }
    rows = train_loader(shuffle=False, sampler=sorted_by_process())
    train("apart", apart, module=silent_module(), loader=rows)
    train("apart plain", {}, module=silent_module(), loader=rows)
    failing = {
        "one process failed": LEEPCallback(FailsOn(1)),
        "all processes failed": LEEPCallback(FailsOn(0, 1)),
        "failed to start": LEEPCallback(make_source(), dataloader=train_loader(FailsToStart(), shuffle=False)),
    }
    train("failed", failing)
    train("strict", {"strict": LEEPCallback(FailsOn(1), strict=True)})
    for stuck in (0, 1):
        callback, stop = LEEPCallback(make_source(), history=False, strict=True), StopWhenHopeless(0.95)
        options = {"module": StuckOn(stuck), "max_epochs": 8, "limit_train_batches": 1, "limit_val_batches": 1}
        train(f"stuck on {stuck}", {"hopeless": callback}, stop, **options)
    network = Network()
    advised = LEEPCallback(network, history=f"{folder}/advised", strict=True)
    transfer, rows = LayerTransfer("blocks.1", learning_rates=0.5), train_loader(shuffle=False)
    train("from a layer on", {"advised": advised}, transfer, module=Tuned(network), loader=rows)
    seen["recommended"] = advised.state_dict()["recommended"]
    return seen
