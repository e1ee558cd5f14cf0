"""What a fit trains is what changes: the record says it, and so does the forecast."""

import copy
from contextlib import nullcontext

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_leep import LEEPCallback
from lightning_leep.layers.trained_part import trained_parameters
from lightning_leep.records import load_history
from tests._helpers.small_transfer import FEW_SCORES, Classifier, D, Z, fit

pytestmark = pytest.mark.usefixtures("no_forks")


def make_source() -> nn.Sequential:
    torch.manual_seed(1)
    blocks = [nn.Sequential(nn.Linear(width, 8), nn.Tanh()) for width in (D, 8, 8)]
    return nn.Sequential(*blocks, nn.Linear(8, Z))


class Model(Classifier):
    """Fine-tunes a copy of three blocks of the source, below a new head."""

    def __init__(self, source: nn.Sequential) -> None:
        super().__init__(source)
        self.body = copy.deepcopy(source[:3])


class Extractor(Model):
    """The transfer-learning example of Lightning's documentation: a feature extractor without gradients."""

    def __init__(self, source) -> None:
        super().__init__(source)
        self.body.eval()

    def forward(self, inputs):
        with torch.no_grad():
            features = self.body(inputs)
        return self.head(features)


class FirstBlockWithoutGradient(Model):
    def forward(self, inputs):
        with torch.no_grad():
            inputs = self.body[0](inputs)
        return self.head(self.body[1:](inputs))


class HeadAlone(Model):
    """Only the head is in the optimizer."""

    def configure_optimizers(self):
        return torch.optim.Adam(self.head.parameters(), lr=0.1)


class RateOfZero(Model):
    def configure_optimizers(self):
        return torch.optim.SGD([{"params": self.body.parameters(), "lr": 0.0}, {"params": self.head.parameters()}], 0.1)


class WarmUp(Model):
    """The first step has a learning rate of zero, and moves nothing."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 3))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class FrozenInSetup(Model):
    def setup(self, stage):
        self.body.requires_grad_(False)


class FrozenOnFitStart(Model):
    def on_fit_start(self):
        self.body.requires_grad_(False)


class FrozenOnTrainStart(Model):
    def on_train_start(self):
        self.body[0].requires_grad_(False)


class FrozenBeforeTheFirstStep(Model):
    def on_train_batch_start(self, batch, batch_idx):
        self.body.requires_grad_(False)


class SkipsABlock(Model):
    """As LayerDrop does, in the first step of all."""

    def forward(self, inputs):
        start = 1 if self.training and self.global_step == 0 else 0
        inputs = nn.functional.pad(inputs, (0, 2)) if start else self.body[0](inputs)
        return self.head(self.body[1:](inputs))


class TwoOptimizers(Model):
    """The head makes its step first."""

    def __init__(self, source) -> None:
        super().__init__(source)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.head, self.body)]


class Freezing(pl.callbacks.BaseFinetuning):
    """Only freezes."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.body)

    def finetune_function(self, pl_module, epoch, optimizer):
        pass


class WithBackbone(Model):
    """Which ``BackboneFinetuning`` unfreezes in the tenth epoch."""

    backbone = property(lambda self: self.body)


CASES = {
    "everything": (Model, [], "all"),
    "feature extractor": (Extractor, [], "head"),
    "a block under no_grad": (FirstBlockWithoutGradient, [], "part"),
    "only the head is optimized": (HeadAlone, [], "head"),
    "a learning rate of zero": (RateOfZero, [], "head"),
    "a first learning rate of zero": (WarmUp, [], "all"),
    "frozen in setup": (FrozenInSetup, [], "head"),
    "frozen in on_fit_start": (FrozenOnFitStart, [], "head"),
    "frozen in on_train_start": (FrozenOnTrainStart, [], "part"),
    "frozen before the first step": (FrozenBeforeTheFirstStep, [], "head"),
    "a block that the first step skips": (SkipsABlock, [], "all"),
    "two optimizers": (TwoOptimizers, [], "all"),
    "a callback that unfreezes nothing": (Model, [Freezing], "head"),
    "a callback that unfreezes too late": (WithBackbone, [pl.callbacks.BackboneFinetuning], "head"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_record_and_forecast(name, tmp_path):
    model, callbacks, word = CASES[name]
    source = make_source()
    callback = LEEPCallback(source, history=tmp_path, strict=True, scoring=FEW_SCORES)
    module = model(source)
    fit(module, *[make() for make in callbacks], callback)
    (record,) = load_history(tmp_path)
    assert (record.trainable, callback.forecast.trainable) == (word, word)
    moved = [not torch.equal(a, b) for a, b in zip(module.body.parameters(), source[:3].parameters(), strict=True)]
    assert ("all" if all(moved) else "part" if any(moved) else "head") == word


class Thaws(Extractor):
    """Without gradients in the first epoch alone."""

    def forward(self, inputs):
        with torch.no_grad() if self.current_epoch == 0 else nullcontext():
            features = self.body(inputs)
        return self.head(features)


def test_a_network_that_gets_gradients_later(tmp_path):
    source = make_source()
    callback = LEEPCallback(source, history=tmp_path, strict=True)
    fit(Thaws(source), callback)
    assert (load_history(tmp_path)[0].trainable, callback.forecast.trainable) == ("gradual", "head")


def test_an_optimizer_that_finds_its_learning_rate():
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adafactor(network.parameters())
    optimizer.param_groups[0]["lr"] = None
    assert trained_parameters(network, [optimizer]) == {"weight", "bias"}


def test_an_optimizer_of_other_tensors():
    """Of those that a strategy made from the network's parameters."""
    network = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(6))])
    assert trained_parameters(network, [optimizer]) == {"1.weight", "1.bias"}
