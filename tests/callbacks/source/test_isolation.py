"""Modules work on copies, and have their own again afterwards."""

import random
import threading
from collections import OrderedDict, defaultdict, deque

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.source.isolation import LentCopies, shares_weights
from tests._helpers.small_transfer import Classifier, D, Z, fit, make_source

CPU = torch.device("cpu")


def lent(*modules, trained=None) -> LentCopies:
    copies = LentCopies(CPU, trained or nn.Identity())
    for module in modules:
        copies.lend(module)
    return copies


class Observer(nn.Module):
    """Changes its buffers in evaluation mode too: one in place, one by a new tensor, one that holds NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, Z)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("largest", torch.full((D,), -torch.inf), persistent=False)
        self.register_buffer("unknown", torch.tensor(torch.nan))
        self.register_buffer("absent", None)

    def forward(self, inputs):
        self.count += 1
        self.largest = torch.maximum(self.largest, inputs.detach().amax(0))
        return self.layer(inputs)


class Observing(Classifier):
    """The source is part of the module in training, and counts its calls there."""

    def __init__(self) -> None:
        super().__init__()
        self.observer = Observer()

    def source_logits(self, inputs):
        return self.observer(inputs)

    def training_step(self, batch, batch_idx):
        self.observer(batch[0])
        return super().training_step(batch, batch_idx)


def test_buffers_that_scoring_changed():
    module = Observing()
    buffers = dict(module.named_buffers())
    fit(module, LEEPCallback(strict=True), max_epochs=1)
    assert module.observer.count.item() == 5  # of training alone
    assert module.observer.count is buffers["observer.count"]
    plain = Observing()
    fit(plain, max_epochs=1)
    assert torch.equal(module.observer.largest, plain.observer.largest)
    assert "largest" not in "".join(module.state_dict())


def test_type_of_the_tensors_that_are_not_shared():
    trained = nn.Sequential(nn.Linear(D, 8), nn.Linear(8, 3)).double()
    source, own = nn.Sequential(trained[0], nn.Linear(8, Z)), nn.Linear(D, Z)
    before = list(source.parameters())
    copies = lent(trained, source, own, trained=trained)
    assert {parameter.dtype for parameter in source.parameters()} == {torch.float64}
    assert source(torch.ones(1, D, dtype=torch.float64)).shape == (1, Z)
    assert own.weight.dtype == torch.float32
    copies.give_back()
    assert all(a is b for a, b in zip(source.parameters(), before, strict=True))
    assert [parameter.dtype for parameter in source.parameters()] == [torch.float64] * 2 + [torch.float32] * 2


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


class Node:
    """A plain object."""


class Hidden(nn.Module):
    """Keeps one thing of every kind."""

    def __init__(self) -> None:
        super().__init__()
        node = Node()
        node.count, node.module, node.itself = 0, nn.Dropout(), node
        self.kept = {
            "list": [[1], (node,)],
            "deque": deque([[1]], maxlen=1),
            "default": defaultdict(list, a=[1]),
            "ordered": OrderedDict(a=[1]),
            "set": {1},
            "array": np.ones(2),
            "tensor": torch.ones(2),
            "object": node,
            "generators": [np.random.default_rng(0), np.random.RandomState(0), random.Random(0), torch.Generator()],
        }


def spoil(kept):
    kept["list"][0].append(2)
    kept["deque"].append([2])
    kept["default"]["b"].append(2)
    kept["ordered"]["a"].append(2)
    kept["set"].add(2)
    kept["array"] += 1
    kept["tensor"] += 1
    kept["object"].count += 1
    numpy, legacy, python, generator = kept["generators"]
    return [numpy.random(), legacy.rand(), python.random(), torch.rand(1, generator=generator).item()]


def test_what_a_module_keeps():
    module = Hidden()
    kept, node = module.kept, module.kept["object"]
    copies = lent(module)
    drawn = spoil(module.kept)
    copied = module.kept["object"]
    assert module.kept["list"][1][0] is copied is copied.itself is not node  # one copy of each object
    assert node.module.training is False  # a module is itself, on copies
    copies.give_back()
    assert module.kept is kept
    assert kept["list"][0] == kept["deque"][0] == kept["ordered"]["a"] == [1]
    assert (dict(kept["default"]), kept["set"], node.count, node.module.training) == ({"a": [1]}, {1}, 0, True)
    assert kept["array"].sum() == kept["tensor"].sum() == 2
    assert spoil(kept) == drawn


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
    module.kept = [Worker(), Closes(), data, trainer, Node, lambda: 0, random.SystemRandom(), random, nn.Linear]
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


def test_shared_weights_are_found():
    source = make_source()
    assert shares_weights(source, nn.Sequential(source[0], nn.Linear(8, 3)))
    assert shares_weights(nn.Sequential(nn.Flatten(), source[1]), source)
    assert not shares_weights(source, make_source())
