"""Which objects are reached from another, and how much is looked at on the way."""

import random
from collections import deque
from functools import lru_cache, partial, wraps
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_leep.utils.reachable import MOST_OBJECTS, SEARCH_WIDTH, outermost, reachable, reachable_modules

NET = nn.Linear(2, 3)
HOLDER = SimpleNamespace(net=NET)


def calls_a_global(x):
    return HOLDER.net(x)


def calls_one_that_does(x):
    return [calls_a_global(row) for row in x]


class Slots:
    __slots__ = ("__dict__", "empty", "net")

    def __init__(self, net):
        self.net = net


class Instance:
    def __init__(self, net):
        self.parts = {"nets": [None, (net,)]}

    def __call__(self, x):
        return self.parts["nets"][1][0](x)

    def method(self, x):
        return self(x)


class NamesAGlobal:
    def __call__(self, x):
        return NET(x)


class OnItsClass:
    net = NET


def closure():
    net = NET
    return lambda x: net(x)


def decorated():
    @wraps(NET.forward)
    def call(x, net=NET):
        return net(x)

    return torch.no_grad()(call)


def recursive():
    holder: dict = {"net": NET}
    holder["itself"] = holder
    return holder


HOLDERS = {
    "itself": lambda: NET,
    "bound method": lambda: NET.forward,
    "method of a holder": lambda: Instance(NET).method,
    "attribute": lambda: Instance(NET),
    "slot": lambda: Slots(NET),
    "closure": closure,
    "default of a decorated function": decorated,
    "keyword default": lambda: lambda x, *, net=NET: net(x),
    "partial": lambda: partial(lambda net, x: net(x), NET),
    "keyword of a partial": lambda: partial(lambda x, net: net(x), net=NET),
    "partial of a module": lambda: partial(partial(NET)),
    "cached function": lambda: lru_cache(closure()),
    "deque": lambda: deque([{NET}]),
    "iterator": lambda: iter([NET]),
    "generator": lambda: (net for net in [NET]),
    "global": lambda: calls_a_global,
    "global of a global in a comprehension": lambda: calls_one_that_does,
    "global that a method names": NamesAGlobal,
    "attribute of a class": OnItsClass,
    "property": lambda: type("Lazy", (), {"net": property(closure())})(),
    "cycle": recursive,
}


@pytest.mark.parametrize("name", HOLDERS)
def test_module_is_reached_from(name):
    assert reachable(HOLDERS[name](), kinds=(nn.Linear,)) == [NET]


def test_nearest_come_first_and_once():
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Tanh()
    assert reachable([[[a]], [b, b]], c, a, kinds=(nn.Module,)) == [c, a, b]


def test_what_is_left_alone():
    tensor = torch.zeros(2)
    tensor.net = NET
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    trainer.net = NET

    def names_packages(x):
        return torch.nn.functional.relu(x) + random.random()

    assert reachable(tensor, trainer, torch, names_packages, nn.Module, kinds=(nn.Module, random.Random)) == []


class OwnTrainer(pl.Trainer):
    """A kind of Trainer of the user's."""


@pytest.mark.parametrize("trainer_class", [pl.Trainer, OwnTrainer])
def test_attributes_of_a_module_that_name_a_trainer(trainer_class):
    """A Trainer holds every callback, and other callbacks' models with them."""
    module = pl.LightningModule()
    trainer = trainer_class(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    trainer.callbacks.append(Instance(NET))
    module.trainer = trainer
    assert reachable_modules(module) == [module]


def test_nothing_is_asked_of_a_proxy():
    class Proxy:
        @property
        def __class__(self):
            raise RuntimeError("not now")

        def __getattr__(self, name):
            raise RuntimeError("not now")

    assert reachable([Proxy(), NET], kinds=(nn.Module,)) == [NET]


def test_modules_come_with_submodules_and_without_comparison():
    """``==`` of a metric makes another metric, and its hash is that of its states."""
    hidden = nn.Sequential(MulticlassAccuracy(3), MulticlassAccuracy(3), nn.Sequential(NET))
    found = reachable_modules([hidden], hidden[2])
    assert sorted(map(id, found)) == sorted(map(id, hidden.modules()))
    assert [module is hidden for module in outermost(found)] == [True]


def test_outermost_of_modules_that_overlap():
    body = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    first, second = nn.Sequential(body, nn.Linear(2, 3)), nn.Sequential(body[0], nn.Linear(2, 4))
    assert outermost(reachable_modules(body, first, second)) == [first, second]


class Augmented(Dataset):
    def __init__(self):
        self.rng = random.Random(0)


def test_long_lists_come_last():
    """Samples do not use up the search before everything else has been looked at."""
    samples = [(f"{i}.png", i) for i in range(200_000)]
    deep = SimpleNamespace(a=SimpleNamespace(b=[SimpleNamespace(c=SimpleNamespace(rng=Augmented()))]))
    root = SimpleNamespace(samples=samples, more=dict.fromkeys(samples[:1000]), deep=deep)
    (found,) = reachable(root, kinds=(Dataset,))
    assert found is deep.a.b[0].c.rng


@pytest.mark.parametrize("number", [SEARCH_WIDTH, SEARCH_WIDTH + 1, 1000])
def test_members_of_a_long_list(number):
    parts = [Augmented() for _ in range(number)]
    everything = SimpleNamespace(paths=[("a", i) for i in range(100_000)], data=ConcatDataset.__new__(ConcatDataset))
    everything.data.datasets = parts
    assert len(reachable(everything, kinds=(random.Random,))) == number


@pytest.mark.parametrize("sample", [("path", 0), torch.zeros(1), 3.5], ids=["pair", "tensor", "number"])
def test_search_ends(sample):
    """However many samples there are."""
    assert reachable([sample] * (SEARCH_WIDTH + 1) + [NET], kinds=(nn.Module,)) == [NET]
    assert reachable([sample] * MOST_OBJECTS + [NET], kinds=(nn.Module,)) == []
    for container in (tuple, deque, iter):
        samples = [SimpleNamespace() for _ in range(MOST_OBJECTS)]
        assert reachable(container([*samples, NET]), kinds=(nn.Module,)) == []
