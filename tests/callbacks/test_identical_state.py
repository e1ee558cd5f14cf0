"""What code of the user's keeps from one call to the next is, in training, as if nobody had scored."""

import sys
from functools import cache, partial
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
    """Rows shifted by something that the data set keeps."""

    def __init__(self, shift) -> None:
        self.count, self.cache, self.rng, self.shift = 0, {}, None, shift

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, index):
        inputs, label = DATA[index]
        return inputs + 0.1 * self.shift(self, index), label


def counted(data, index):
    data.count += 1
    return data.count % 7


def cached(data, index):
    """Augmented once, when it is first read."""
    return data.cache.setdefault(index, len(data.cache))


def drawn(data, index):
    if data.rng is None:
        data.rng = np.random.default_rng(0)
    return data.rng.normal()


def library():
    """An installed package with a generator of its own."""
    package = sys.modules["augmentations"] = ModuleType("augmentations")
    package.rng = np.random.default_rng(0)
    return Stateful(lambda data, index: sys.modules["augmentations"].rng.normal())


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


LOADERS = {
    "counter": lambda: train_loader(Stateful(counted)),
    "cache": lambda: train_loader(Stateful(cached)),
    "generator made by the first item": lambda: train_loader(Stateful(drawn)),
    "generator of a library": lambda: train_loader(library()),
    "collate function": lambda: train_loader(collate_fn=Collate()),
    "batch sampler": lambda: DataLoader(DATA, batch_sampler=Batches([[i, 49 - i] for i in range(25)])),
}


def kept(loader):
    data, collate = loader.dataset, loader.collate_fn
    return getattr(data, "count", 0), getattr(data, "cache", {}), getattr(collate, "calls", 0)


@cache
def plain_on(name):
    module, loader = Classifier(), LOADERS[name]()
    fit(module, loader=loader)
    return trained_state(module), kept(loader)


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True], ids=["training loader", "given loader of the same data"])
@pytest.mark.parametrize("name", LOADERS)
def test_what_data_keep(name, given):
    module, loader = Classifier(), LOADERS[name]()
    other = DataLoader(loader.dataset, batch_size=10, collate_fn=loader.collate_fn) if given else None
    callback = LEEPCallback(make_source(), strict=True, dataloader=other, scoring=FEW_SCORES)
    fit(module, callback, loader=loader)
    assert callback.report is not None
    assert (trained_state(module), kept(loader)) == plain_on(name)


class Meter:
    def __init__(self) -> None:
        self.count = 0


class Remembers(nn.Module):
    """A layer that changes when it runs, by ``change``."""

    def __init__(self, change) -> None:
        super().__init__()
        self.calls, self.cache, self.seen, self.meter, self.rng, self.mean = 0, {}, [], Meter(), None, torch.zeros(())
        self.own_rng = np.random.default_rng(0)
        self.weight = nn.Parameter(torch.ones(D))
        self.register_buffer("total", torch.zeros(()))
        self.change = change

    def forward(self, inputs):
        shift = 0.1 * self.change(self, inputs)
        return torch.sin(inputs * self.weight + shift)


def calls(layer, inputs):
    layer.calls += 1
    return layer.calls


def fills_containers(layer, inputs):
    layer.seen.append(len(layer.cache))
    layer.cache[len(layer.seen)] = len(layer.seen)
    return len(layer.cache)


def counts_elsewhere(layer, inputs):
    layer.meter.count += 1
    return layer.meter.count


def draws(layer, inputs):
    layer.rng = layer.rng or np.random.default_rng(0)
    return layer.rng.normal() + layer.own_rng.normal()


def changes_tensors(layer, inputs):
    layer.total += 1
    layer.mean.mul_(0.9).add_(inputs.detach().mean())
    return layer.total + layer.mean


def changes_its_parameter(layer, inputs):
    with torch.no_grad():
        layer.weight.mul_(0.9)
    return 0


def replaces_its_parameter(layer, inputs):
    layer.weight.data = layer.weight.data * 0.9
    return 0


def adds_a_layer(layer, inputs):
    if not hasattr(layer, "late"):
        layer.late = nn.Linear(D, D)
    return layer.late(inputs)


CHANGES = [calls, fills_containers, counts_elsewhere, draws, changes_tensors, changes_its_parameter]
CHANGES += [replaces_its_parameter, adds_a_layer]


class Remembering(Classifier):
    """Trains a layer that remembers, below the body; the source has it as well."""

    def __init__(self, change, hidden: bool = False) -> None:
        super().__init__()
        layer = Remembers(change)
        self.layers = [layer] if hidden else nn.ModuleList([layer])

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


def left_by(module, *callbacks):
    """What training leaves behind; without a sanity check, which would be the first to run the layer."""
    fit(module, *callbacks, num_sanity_val_steps=0)
    layer = module.layers[0]
    return trained_state(module), layer.weight.tolist(), layer.calls, layer.cache, layer.meter.count


@cache
def plain_remembering(change, hidden):
    return left_by(Remembering(change, hidden))


@pytest.mark.slow
@pytest.mark.usefixtures("no_forks")
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        *((change, "function") for change in CHANGES),
        *(
            (change, kind)
            for kind in SOURCES
            if kind != "function"
            for change in (draws, changes_tensors, adds_a_layer)
        ),
    ],
)
def test_what_modules_keep(change, kind):
    hidden = "list" in kind
    module = Remembering(change, hidden)
    callback = LEEPCallback(SOURCES[kind](module), strict=True, scoring=FEW_SCORES)
    assert left_by(module, callback) == plain_remembering(change, hidden)
    assert callback.report is not None


def test_batches_that_a_source_normalises_in_place():
    """The given batches are views of the very rows that are trained on."""
    after = []
    for scored in (False, True):
        rows = torch.utils.data.TensorDataset(*(tensor.clone() for tensor in DATA.tensors))
        given = [tuple(tensor[i : i + 10] for tensor in rows.tensors) for i in range(0, 50, 10)]
        module = Classifier()
        callback = LEEPCallback(lambda inputs: inputs.sub_(3)[:, :Z], strict=True, dataloader=given)
        fit(module, *[callback][: int(scored)], loader=train_loader(rows))
        after.append(trained_state(module))
    assert after[0] == after[1]


class Logs(Classifier):
    def source_logits(self, inputs):
        self.log("spread", inputs.std())
        self.log_dict({"train_loss": inputs.mean()})
        return super().source_logits(inputs)


def test_values_that_the_source_logs():
    metrics = fit(Logs(), LEEPCallback(strict=True)).callback_metrics
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


def test_source_of_its_own_is_as_before():
    source = nn.Sequential(Remembers(calls), make_source())
    fit(Classifier(), LEEPCallback(source, strict=True))
    assert source[0].calls == 0
