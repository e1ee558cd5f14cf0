"""What a fit trains is what changes: the record says it, and so does the forecast."""

import copy
from contextlib import nullcontext
from functools import partial

import lightning.pytorch
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_leep import LEEPCallback
from lightning_leep.forecast import forecast_accuracy
from lightning_leep.layers.trained_part import trained_parameters, unfreezes
from lightning_leep.records import load_history
from tests._helpers.small_transfer import FEW_SCORES, Classifier, D, Z, fit, resume

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


class FrozenInSetup(Model):
    def setup(self, stage):
        self.body.requires_grad_(False)


class FrozenOnTrainStart(Model):
    def on_train_start(self):
        self.body[0].requires_grad_(False)


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


class FreezesOnly(pl.callbacks.BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.body)

    def finetune_function(self, pl_module, epoch, optimizer):
        pass


class FreezesAtTheEnd(pl.Callback):
    """Prepares the module for export."""

    def on_train_end(self, trainer, pl_module):
        pl_module.freeze()


class UnfreezesInTheSecondEpoch(FreezesOnly):
    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.body, optimizer)


class OptimizesWhatIsNotFrozen(Model):
    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


class UnfrozenInTheSecondEpoch(FrozenInSetup):
    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.body.requires_grad_(True)


class GradientsInTheSecondEpoch(Extractor):
    def forward(self, inputs):
        with torch.no_grad() if self.current_epoch == 0 else nullcontext():
            features = self.body(inputs)
        return self.head(features)


#: The module, a callback, and the word: of the record, and of the forecast before training if that is another.
CASES = {
    "everything": (Model, [], "all"),
    "feature extractor": (Extractor, [], "head"),
    "a block under no_grad": (FirstBlockWithoutGradient, [], "part"),
    "only the head is optimized": (HeadAlone, [], "head"),
    "frozen in setup": (FrozenInSetup, [], "head"),
    "frozen in on_train_start": (FrozenOnTrainStart, [], "part"),
    "a block that the first step skips": (SkipsABlock, [], "all"),
    "two optimizers": (TwoOptimizers, [], "all"),
    "unfrozen on the way": (UnfrozenInTheSecondEpoch, [], "gradual", "head"),
    "gradients that come later": (GradientsInTheSecondEpoch, [], "gradual", "head"),
    "frozen after training": (Model, [FreezesAtTheEnd], "all"),
    "a callback that unfreezes nothing": (Model, [FreezesOnly], "head"),
    "a callback that unfreezes": (OptimizesWhatIsNotFrozen, [UnfreezesInTheSecondEpoch], "gradual"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_record_and_forecast(name, tmp_path):
    model, callbacks, *words = CASES[name]
    source = make_source()
    callback = LEEPCallback(source, history=tmp_path, strict=True, scoring=FEW_SCORES)
    module = model(source)
    fit(module, *[make() for make in callbacks], callback)
    (record,) = load_history(tmp_path)
    assert [record.trainable, callback.forecast.trainable] == [words[0], words[-1]]
    assert callback.forecast == forecast_accuracy(callback.report, trainable=words[-1], test_size=40)
    if words[0] != "gradual":
        moved = [not torch.equal(a, b) for a, b in zip(module.body.parameters(), source[:3].parameters(), strict=True)]
        assert ("all" if all(moved) else "part" if any(moved) else "head") == words[0]


@pytest.mark.parametrize("package", [pl, lightning.pytorch], ids=["pytorch_lightning", "lightning.pytorch"])
def test_a_callback_that_unfreezes_too_late(package):
    callback = package.callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=2)
    assert [unfreezes(callback, max_epochs) for max_epochs in (2, 3, -1, None)] == [False, True, True, True]


@pytest.mark.parametrize("hook", ["setup", "on_train_start"])
def test_weights_after_training_are_not_compared(hook, tmp_path):
    """A run that goes on knows what came from the source, though it has changed since, or is not frozen yet."""

    class FirstBlockFrozen(Model):
        def setup(self, stage):
            self.body[0].requires_grad_(hook != "setup")

        def on_train_start(self):
            self.body[0].requires_grad_(False)

    source, saver = make_source(), pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    options = {"history": tmp_path / "history", "strict": True, "scoring": FEW_SCORES}
    fit(FirstBlockFrozen(source), LEEPCallback(source, **options), saver, enable_checkpointing=True)
    resume(saver.last_model_path, FirstBlockFrozen(source), LEEPCallback(source, **options))
    assert [record.trainable for record in load_history(tmp_path / "history")] == ["part", "part"]


def changed_by(optimizer, network):
    return {name.partition(".")[0] for name in trained_parameters(network, [optimizer])}


def test_layers_that_an_optimizer_changes():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    first, second = ({"params": list(layer.parameters())} for layer in network[:2])
    sgd = partial(torch.optim.SGD, lr=0.1)
    assert changed_by(sgd([second]), network) == {"1"}
    assert changed_by(sgd([first | {"lr": 0.0}, second]), network) == {"1"}
    warming_up, adafactor = sgd([first, second]), torch.optim.Adafactor(network.parameters())
    torch.optim.lr_scheduler.LambdaLR(warming_up, lambda step: min(1.0, step / 3))
    adafactor.param_groups[0]["lr"] = None  # it finds its rate
    assert changed_by(warming_up, network) == changed_by(adafactor, network) == {"0", "1"}
    of_a_strategy = sgd([nn.Parameter(torch.zeros(6))])
    assert changed_by(of_a_strategy, network) == {"0", "1"}
