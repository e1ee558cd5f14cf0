"""What real fits train, as forecasts and records know it."""

import copy

import lightning.pytorch.callbacks
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_leep import LEEPCallback
from lightning_leep.forecast import forecast_accuracy
from lightning_leep.records import load_history
from tests._helpers.compared_training import plain_state
from tests._helpers.small_transfer import (
    C,
    Classifier,
    D,
    LightningClassifier,
    Z,
    fit,
    make_source,
    make_trainer,
    train_loader,
    trained_state,
    val_loader,
)
from tests.layers.test_trained_part import only

pytestmark = pytest.mark.usefixtures("no_forks")


class CopiedBody(Classifier):
    """Trains a copy of the source's layers, of which some are frozen."""

    def __init__(self, source: nn.Sequential, *trained: str) -> None:
        super().__init__()
        self.body = only(copy.deepcopy(source[:-1]), *trained)


@pytest.mark.parametrize(
    ("trained", "expected", "said"),
    [(("",), "all", "all layers"), (("0.bias",), "part", "part of the layers"), (("none",), "head", "the head")],
)
def test_forecast_and_record_know_it(trained, expected, said, tmp_path):
    source = make_source()
    callback = LEEPCallback(source, history=tmp_path, strict=True)
    fit(CopiedBody(source, *trained), callback)
    assert load_history(tmp_path)[0].trainable == expected
    assert f"{said} is expected to reach" in callback.forecast.describe()
    assert callback.forecast == forecast_accuracy(callback.report, trainable=expected, test_size=40)
    assert ("all layers" in callback.forecast.basis) == (expected != "head")


def test_weights_after_training_are_not_compared(tmp_path):
    """A run that goes on knows what came from the source, though it has changed since."""
    source = nn.Sequential(nn.Linear(D, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, Z))
    saver = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    options = {"history": tmp_path / "history", "strict": True}
    fit(CopiedBody(source, "2.weight", "2.bias"), LEEPCallback(source, **options), saver, enable_checkpointing=True)
    trainer, module = (
        make_trainer(LEEPCallback(source, **options), max_epochs=3),
        CopiedBody(source, "2.weight", "2.bias"),
    )
    trainer.fit(module, train_loader(), val_loader(), ckpt_path=saver.last_model_path)
    assert [record.trainable for record in load_history(tmp_path / "history")] == ["part", "part"]


class Unfreezes(CopiedBody):
    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.body.requires_grad_(True)


@pytest.mark.parametrize("given", [None, "mine"])
def test_a_network_that_is_unfrozen_on_the_way(given, tmp_path):
    source = make_source()
    callback = LEEPCallback(source, history=tmp_path, trainable=given, strict=True)
    fit(Unfreezes(source, "none"), callback)
    assert load_history(tmp_path)[0].trainable == (given or "gradual")
    assert callback.forecast.trainable == (given or "head")  # all that could be known


class Freezes(pl.Callback):
    """Prepares the module for export."""

    def on_train_end(self, trainer, pl_module):
        pl_module.freeze()


def test_what_is_frozen_after_training_was_trained(tmp_path):
    source = make_source()
    fit(CopiedBody(source, ""), Freezes(), LEEPCallback(source, history=tmp_path, strict=True))
    assert load_history(tmp_path)[0].trainable == "all"


@pytest.mark.parametrize("package", [pl, lightning.pytorch], ids=["pytorch_lightning", "lightning.pytorch"])
@pytest.mark.parametrize("first", [True, False])
def test_a_callback_that_unfreezes_layers(package, first, tmp_path):
    class Unfreezing(package.callbacks.BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.body, train_bn=False)

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.body, optimizer)

    callback = LEEPCallback(make_source(), history=tmp_path, strict=True)
    callbacks = [callback, Unfreezing()] if first else [Unfreezing(), callback]
    base = Classifier if package is pl else LightningClassifier

    class Trained(base):
        def configure_optimizers(self):
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)

    trainer = package.Trainer(
        callbacks=callbacks,
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Trained(), train_loader(), val_loader())
    assert callback.forecast.trainable == "gradual"
    assert load_history(tmp_path)[0].trainable == "gradual"


def test_a_fault_is_contained(monkeypatch):
    def fail(*args):
        raise ArithmeticError("no strategy")

    monkeypatch.setattr("lightning_leep.layers.trained_part.find_transferred", fail)
    module, callback = Classifier(), LEEPCallback(make_source())
    with pytest.warns(UserWarning, match="see what is trained: ArithmeticError: no strategy. Pass `trainable=`"):
        fit(module, callback)
    assert trained_state(module) == plain_state()
    assert callback.forecast.trainable == "all"  # of which the interval is wide
    assert callback.report.num_target_classes == C
