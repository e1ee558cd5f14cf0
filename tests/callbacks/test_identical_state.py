"""What code of the user's keeps from one call to the next is, in training, as if nobody had scored."""

import random
import sys
from collections import OrderedDict, defaultdict, deque
from functools import cache, partial
from itertools import chain
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from lightning_leep import LEEPCallback
from tests._helpers.small_transfer import (
    DATA,
    FEW_SCORES,
    Classifier,
    D,
    Z,
    fit,
    make_source,
    train_loader,
    trained_state,
)


class Stateful(Dataset):
    """Rows shifted by all that a data set may keep, or a package that it uses."""

    def __init__(self) -> None:
        self.count, self.cache, self.rng = 0, {}, None
        package = sys.modules["augmentations"] = ModuleType("augmentations")
        package.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, index):
        self.count += 1
        if self.rng is None:
            self.rng = np.random.default_rng(0)
        augmented_once = self.cache.setdefault(index, len(self.cache))
        drawn = self.rng.normal() + sys.modules["augmentations"].rng.normal()
        inputs, label = DATA[index]
        return inputs + 0.1 * (self.count % 7 + augmented_once + drawn), label


class Collate:
    calls = 0

    def __call__(self, rows):
        self.calls += 1
        inputs, labels = default_collate(rows)
        return inputs + self.calls, labels


class Batches(list):
    """A batch sampler that counts how often it was asked."""

    asked = 0

    def __iter__(self):
        self.asked += 1
        return iter([[(row + self.asked) % 50 for row in batch] for batch in list.__iter__(self)])


def stateful_loader():
    return DataLoader(Stateful(), batch_sampler=Batches([[i, 49 - i] for i in range(25)]), collate_fn=Collate())


def left_by_data(loader, *callbacks):
    fit(module := Classifier(), *callbacks, loader=loader)
    kept = loader.dataset.count, loader.dataset.cache, loader.collate_fn.calls, loader.batch_sampler.asked
    return trained_state(module), kept


@cache
def plain_on_stateful_data():
    return left_by_data(stateful_loader())


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True], ids=["training loader", "given loader of the same data"])
def test_what_data_keep(given):
    loader = stateful_loader()
    other = DataLoader(loader.dataset, batch_size=10, collate_fn=loader.collate_fn) if given else None
    callback = LEEPCallback(make_source(), strict=True, dataloader=other, scoring=FEW_SCORES)
    assert left_by_data(loader, callback) == plain_on_stateful_data()
    assert callback.report.num_samples == 50


class Node:
    """A plain object that holds others, and itself."""

    def __init__(self) -> None:
        self.count, self.itself, self.dropout = 0, self, nn.Dropout()


class Remembers(nn.Module):
    """A layer that changes all that a layer may keep when it runs, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.node, self.made_late, self.mean = 0, Node(), None, torch.zeros(())
        self.kept = {
            "list": [[1], (self.node,)],
            "deque": deque([1], maxlen=3),
            "default": defaultdict(list, a=[1]),
            "ordered": OrderedDict(a=[1]),
            "set": {1},
            "array": np.ones(2),
        }
        self.numpy, self.legacy, self.python = np.random.default_rng(0), np.random.RandomState(0), random.Random(0)
        self.generator = torch.Generator()
        self.weight, self.replaced = nn.Parameter(torch.ones(D)), nn.Parameter(torch.ones(D))
        self.register_buffer("total", torch.zeros((), dtype=torch.long))
        self.register_buffer("largest", torch.full((D,), -torch.inf), persistent=False)
        self.register_buffer("absent", None)

    def forward(self, inputs):
        self.calls += 1
        self.node.count += 1
        assert self.kept["list"][1][0] is self.node is self.node.itself  # there is one, or one copy
        self.made_late = self.made_late or np.random.default_rng(0)
        if not hasattr(self, "late"):
            self.late = nn.Linear(D, D)
        self.mean.mul_(0.9).add_(inputs.detach().mean())
        self.total += 1
        self.largest = torch.maximum(self.largest, inputs.detach().amax(0))
        with torch.no_grad():
            self.weight.mul_(0.9)
        self.replaced.data = self.replaced.data * 0.9
        numbers = self.calls + self.node.count + self.change_containers()
        draws = self.numpy.normal() + self.legacy.normal() + self.python.random() + self.made_late.normal()
        tensors = self.mean + self.total + self.largest + torch.randn((), generator=self.generator) + self.late(inputs)
        return torch.sin(inputs * self.weight * self.replaced + 0.1 * (numbers + draws + tensors))

    def change_containers(self) -> float:
        kept = self.kept
        kept["list"][0].append(2)
        kept["deque"].append(self.calls)
        kept["default"]["b"].append(2)
        kept["ordered"]["a"].append(2)
        kept["set"].add(self.calls)
        kept["array"] += 1
        lists = kept["list"][0] + kept["default"]["b"] + kept["ordered"]["a"]
        return len(lists) + sum(kept["deque"]) + len(kept["set"]) + kept["array"].sum()


class Remembering(Classifier):
    """Trains a layer that remembers, below the body; the source has it as well."""

    def __init__(self, hidden: bool = False) -> None:
        super().__init__()
        self.layers = [Remembers()] if hidden else nn.ModuleList([Remembers()])

    def source_logits(self, inputs):
        return super().source_logits(self.layers[0](inputs))

    def forward(self, inputs):
        return super().forward(self.layers[0](inputs))


SOURCES = {
    "method": lambda module: None,
    "method that calls a module in a list": lambda module: None,
    "function": lambda module: lambda inputs: module.source_logits(inputs),
    "partial of a module": lambda module: partial(nn.Sequential(module.layers[0], *module.source[0])),
}


def left_by_modules(module, *callbacks):
    """What training leaves behind; without a sanity check, which would be the first to run the layer."""
    fit(module, *callbacks, num_sanity_val_steps=0)
    layer = module.layers[0]
    tensors = {name: value.tolist() for name, value in chain(layer.named_parameters(), layer.named_buffers())}
    numbers = layer.calls, layer.node.count, layer.node.dropout.training, layer.mean.item(), layer.numpy.normal()
    return trained_state(module), tensors, numbers, repr({k: v for k, v in layer.kept.items() if k != "list"})


@cache
def plain_remembering(hidden):
    return left_by_modules(Remembering(hidden))


@pytest.mark.slow
@pytest.mark.usefixtures("no_forks")
@pytest.mark.parametrize("kind", SOURCES)
def test_what_modules_keep(kind):
    hidden = "list" in kind
    module = Remembering(hidden)
    callback = LEEPCallback(SOURCES[kind](module), strict=True, scoring=FEW_SCORES)
    assert left_by_modules(module, callback) == plain_remembering(hidden)
    assert callback.report is not None


def test_batches_that_a_source_normalises_in_place():
    """The given batches are views of the very rows that are trained on."""
    after = []
    for scored in (False, True):
        rows = torch.utils.data.TensorDataset(*(tensor.clone() for tensor in DATA.tensors))
        given = [tuple(tensor[i : i + 10] for tensor in rows.tensors) for i in range(0, 50, 10)]
        module = Classifier()
        callback = LEEPCallback(lambda inputs: inputs.sub_(3)[:, :Z], strict=True, dataloader=given, scoring=FEW_SCORES)
        fit(module, *[callback][: int(scored)], loader=train_loader(rows))
        after.append(trained_state(module))
    assert after[0] == after[1]


class Logs(Classifier):
    def source_logits(self, inputs):
        self.log("spread", inputs.std())
        self.log_dict({"train_loss": inputs.mean()})
        return super().source_logits(inputs)


def test_values_that_the_source_logs():
    metrics = fit(Logs(), LEEPCallback(strict=True, scoring=FEW_SCORES)).callback_metrics
    plain = fit(Logs()).callback_metrics
    assert {name: value for name, value in metrics.items() if not name.startswith("leep")} == plain


class Lazy(Classifier):
    """The head of the source has never run."""

    def __init__(self) -> None:
        super().__init__()
        self.old_head = nn.LazyLinear(Z)

    def source_logits(self, inputs):
        return self.old_head(self.body(inputs))

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + self.source_logits(batch[0]).square().mean()


def test_layer_that_is_not_initialised():
    module, plain, callback = Lazy(), Lazy(), LEEPCallback()
    with pytest.warns(UserWarning, match="The source runs LazyLinear, an uninitialised layer"):
        fit(module, callback)
    fit(plain)
    assert trained_state(module) == trained_state(plain)
    assert callback.report is None
