"""Modules work on copies, and have their own again afterwards."""

import random
import threading

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_leep.callbacks.source.isolation import LentCopies
from tests._helpers.small_transfer import D, Z

CPU = torch.device("cpu")


def lent(*modules, trained=None) -> LentCopies:
    copies = LentCopies(CPU, trained or nn.Identity())
    for module in modules:
        copies.lend(module)
    return copies


def test_weights_stay_tied():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    lent(first, second)
    assert second.weight is first.weight


def test_recurrent_layers():
    """They keep their weights in a list as well."""
    layer, inputs = nn.GRU(D, 5, 2, batch_first=True).eval(), torch.randn(3, 4, D)
    before, flat = layer(inputs)[0], layer._flat_weights
    copies = lent(layer)
    assert torch.equal(layer(inputs)[0], before)
    assert all(a is b for a, b in zip(layer._flat_weights, layer.parameters(), strict=True))
    copies.give_back()
    assert layer._flat_weights is flat


class Worker:
    """Works together with a thread, which would not know a copy."""

    def __init__(self) -> None:
        self.lock, self.results = threading.Lock(), []


class Closes:
    def __del__(self) -> None:
        pass


def test_objects_that_are_shared():
    module, data = nn.Module(), TensorDataset(torch.zeros(2))
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    module.kept = [Worker(), Closes(), data, trainer, Worker, lambda: 0, random.SystemRandom(), random, nn.Linear]
    kept = list(module.kept)
    lent(module)
    assert all(a is b for a, b in zip(module.kept, kept, strict=True))


def test_nothing_is_asked_of_a_proxy():
    class Proxy:
        @property
        def __class__(self):
            raise RuntimeError("not now")

        def __getattr__(self, name):
            raise RuntimeError("not now")

    module = nn.Module()
    module.kept = [Proxy()]
    lent(module).give_back()


def test_long_containers_are_copied_without_what_they_hold():
    module, sample = nn.Module(), [0]
    module.samples = [sample] * 20_000
    lent(module)
    assert module.samples[0] is sample
    assert len(module.samples) == 20_000


def test_modules_without_storage_are_left_alone():
    """A module that a source merely refers to may be a sketch on the meta device, or not initialised yet."""
    sketch, lazy = nn.BatchNorm1d(3, device="meta"), nn.LazyBatchNorm1d()
    copies = lent(sketch, lazy)
    assert sketch.weight.is_meta
    copies.give_back()
    assert lazy.has_uninitialized_params()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated.*")
def test_script_modules_run_as_they_are():
    module = nn.Sequential(torch.jit.script(nn.BatchNorm1d(D)), nn.Linear(D, Z))
    inputs = torch.randn(4, D)
    copies = lent(module)
    assert module(inputs).shape == (4, Z)
    copies.give_back()
    assert module[1].training
