"""What is borrowed is given back as it was."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.source.isolation import (
    borrowed_module,
    preserved_buffers,
    preserved_generators,
    shares_weights,
)
from tests._helpers.small_transfer import Classifier, D, Z, fit, make_source

CPU = torch.device("cpu")


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


def test_storage_and_type_of_the_parts_that_are_not_shared():
    trained = nn.Sequential(nn.Linear(D, 8), nn.Linear(8, 3)).double()
    source = nn.Sequential(trained[0], nn.Linear(8, Z))
    before = [parameter.data_ptr() for parameter in source.parameters()]
    with borrowed_module(source, CPU, trained):
        assert {parameter.dtype for parameter in source.parameters()} == {torch.float64}
        assert source(torch.ones(1, D, dtype=torch.float64)).shape == (1, Z)
    assert [parameter.data_ptr() for parameter in source.parameters()] == before
    assert [parameter.dtype for parameter in source.parameters()] == [torch.float64] * 2 + [torch.float32] * 2

    own = nn.Linear(D, Z)
    with borrowed_module(own, CPU, trained):
        assert own.weight.dtype == torch.float32


def test_given_back_after_an_error():
    trained = nn.Linear(D, 8).double()
    source = nn.Sequential(trained, nn.BatchNorm1d(8))

    def spoil():
        with preserved_buffers(source.modules()), borrowed_module(source, CPU, trained):
            source[1].running_mean += 1
            raise KeyError

    with pytest.raises(KeyError):
        spoil()
    assert source[1].weight.dtype == torch.float32
    assert source[1].running_mean.tolist() == [0.0] * 8


def test_modules_without_storage_are_left_alone():
    """A module that a source merely refers to may be a sketch on the meta device."""
    sketch = nn.BatchNorm1d(3, device="meta")
    with preserved_buffers([sketch]), borrowed_module(sketch, CPU, nn.Linear(2, 2)):
        assert sketch.weight.is_meta
    assert sketch.running_mean.is_meta


def test_buffers_that_do_not_exist_yet_are_left_alone():
    module = nn.LazyBatchNorm1d()
    with preserved_buffers([module]):
        module(torch.randn(6, 3))
    assert module.running_mean.shape == (3,)


def test_shared_weights_are_found():
    source = make_source()
    assert shares_weights(source, nn.Sequential(source[0], nn.Linear(8, 3)))
    assert shares_weights(nn.Sequential(nn.Flatten(), source[1]), source)
    assert not shares_weights(source, make_source())


class Holder(Dataset):
    def __init__(self, **attributes) -> None:
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return 1


GENERATORS = {
    "torch": (lambda: torch.Generator().manual_seed(0), lambda g: torch.rand(1, generator=g).item()),
    "numpy": (lambda: np.random.default_rng(0), lambda g: g.random()),
    "numpy legacy": (lambda: np.random.RandomState(0), lambda g: g.rand()),
    "python": (lambda: random.Random(0), lambda g: g.random()),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_anywhere_in_a_data_set(kind):
    make, draw = GENERATORS[kind]
    generators = [make() for _ in range(4)]
    deep = Subset(ConcatDataset([Holder(transform=Holder(transforms=[None, Holder(rng=generators[1])]))]), [])
    deep.itself = deep
    root = [Holder(rng=generators[0]), deep, {"collate": (generators[2],)}, lambda rows: draw(generators[3])]
    wanted = [draw(generator) for generator in [make() for _ in range(4)]]
    with preserved_generators(*root):
        assert [draw(generator) for generator in generators] == wanted
    assert [draw(generator) for generator in generators] == wanted


def test_generator_without_a_state():
    """It draws from the operating system, and ``getstate`` raises."""
    with preserved_generators(random.SystemRandom()):
        pass
