"""Training from one layer on: what stays, what learns, how fast; resumed, and beside LEEPCallback."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_leep import LayerTransfer, LEEPCallback
from lightning_leep.records import load_history
from tests._helpers.block_networks import Network, Tuned
from tests._helpers.small_transfer import C, fit, make_trainer, train_loader, val_loader

pytestmark = pytest.mark.usefixtures("no_forks")


class Beside(Tuned):
    """The head lies beside the backbone, and is registered first."""

    def __init__(self) -> None:
        super().__init__()
        del self.net
        self.classifier = nn.Linear(8, C)
        self.backbone = Network(None)

    def forward(self, inputs):
        return self.classifier(self.backbone(inputs))


def trained(module, *callbacks, **kwargs):
    """Names of the parameters and buffers that training changed."""
    before = copy.deepcopy(module.state_dict())
    fit(module, *callbacks, **kwargs)
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    return {name for name in moved if "accuracy" not in name}


STAYS = {
    "net.blocks.2": ("net.shift", "net.stem", "net.blocks.0", "net.blocks.1"),
    "blocks.1": ("net.shift", "net.stem", "net.blocks.0"),
    "head": ("net.shift", "net.stem", "net.blocks", "net.norm"),
    None: (),
}


@pytest.mark.parametrize(("trained_from", "stays"), STAYS.items())
def test_layers_before_the_first_trained_one_stay_with_their_statistics(trained_from, stays):
    module = Tuned()
    names = set(module.state_dict()) - {name for name in module.state_dict() if "accuracy" in name}
    # Batch statistics make the bias before a BatchNorm1d useless: its gradient is a rounding error or zero.
    useless = {name for name in names if name.endswith("first.bias")}
    wanted = {name for name in names if not name.startswith(stays or ("nothing",))}
    assert trained(module, LayerTransfer(trained_from)) | useless == wanted | useless


def test_a_head_beside_the_network_is_trained_though_it_is_registered_first():
    assert trained(Beside(), LayerTransfer("head")) == {"classifier.weight", "classifier.bias"}
    assert {"classifier.weight", "backbone.blocks.2.second.weight"} <= trained(Beside(), LayerTransfer("blocks.2"))


@pytest.mark.parametrize("trained_from", ["head", "blocks.2"])
def test_a_frozen_source_that_the_module_keeps_is_not_the_network(trained_from):
    class Keeps(Tuned):
        def __init__(self) -> None:
            super().__init__()
            self.source = Network(7).requires_grad_(False)

        def source_logits(self, inputs):
            return self.source(inputs)

    assert trained(Keeps(), LayerTransfer(trained_from, 0.5)) == trained(Tuned(), LayerTransfer(trained_from, 0.5))


def test_frozen_layers_are_in_evaluation_mode_after_a_hook_that_calls_train():
    class Eager(Tuned):
        def on_train_epoch_start(self):
            self.train()

        def on_train_batch_start(self, batch, batch_idx):
            modes.append((self.net.blocks[0].norm.training, self.net.blocks[2].norm.training))

    modes = []
    trained(Eager(), LayerTransfer("blocks.2"))
    assert set(modes) == {(False, True)}


def test_an_unknown_layer_is_one_error_that_lists_the_blocks():
    with pytest.raises(ValueError, match=r"'layer9' is not there\. Its blocks: net\.blocks\.0, net\.blocks\.1"):
        fit(Tuned(), LayerTransfer("layer9"))
    with pytest.raises(ValueError, match=r"fits net\.blocks\.0\.first and net\.blocks\.1\.first"):
        fit(Tuned(), LayerTransfer("first"))


@pytest.mark.parametrize("rates", [0, -1, 1.5, float("nan"), {"net": 0}, {"net": -1}])
def test_rates_out_of_range(rates):
    with pytest.raises(ValueError, match="learning_rates"):
        LayerTransfer(learning_rates=rates)


@pytest.mark.parametrize("argument", [{"trained_from": 3}, {"trained_from": ""}, {"learning_rates": "0.8"}])
def test_arguments_of_the_wrong_type(argument):
    with pytest.raises(TypeError, match=next(iter(argument))):
        LayerTransfer(**argument)


# One factor a block, counted from the head: 1, g, g^2, g^3; the last normalisation goes with the last block.
DECAYED = {
    "net.head.weight": 1.0,
    "net.norm.weight": 0.5,
    "net.blocks.2.first.weight": 0.5,
    "net.blocks.1.second.bias": 0.25,
    "net.blocks.0.norm.weight": 0.125,
    "net.stem.weight": 0.125,
    "net.shift": 0.125,
}


class RateWatch(pl.Callback):
    """The learning rate of each parameter at every step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        names = {parameter: name for name, parameter in pl_module.named_parameters()}
        self.rates = getattr(self, "rates", [])
        groups = trainer.optimizers[0].param_groups
        self.rates.append({names[p]: group["lr"] for group in groups for p in group["params"]})


def with_schedule(make_schedule):
    def make(module):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make_schedule(optimizer), "interval": "step"}}

    return make


lr_scheduler = torch.optim.lr_scheduler
SCHEDULES = {
    "cosine": with_schedule(lambda o: lr_scheduler.CosineAnnealingLR(o, 10)),
    "lambda": with_schedule(lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step))),
    "one cycle": with_schedule(lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20)),
    "cyclic": with_schedule(lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3)),
    "warm-up": with_schedule(
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 7)], [3]
        )
    ),
    "chained": with_schedule(
        lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(o, 0.9), lr_scheduler.ConstantLR(o, 0.5)])
    ),
}


def rates_of_every_step(made, steps):
    """The learning rate of the one group of an optimizer before each step, without a Trainer."""
    optimizer, rates = made["optimizer"], []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made["lr_scheduler"]["scheduler"].step()
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_keep_their_ratio_under_every_schedule(name):
    watch = RateWatch()
    fit(Tuned(make_optimizer=SCHEDULES[name]), watch, LayerTransfer(learning_rates=0.5))
    alone = rates_of_every_step(SCHEDULES[name](Tuned()), steps=10)
    assert len(watch.rates) == 10
    for rate, scaled in zip(alone, watch.rates, strict=True):
        assert scaled.keys() == {name for name, _ in Tuned().named_parameters()}
        assert {name: scaled[name] for name in DECAYED} == pytest.approx(
            {name: factor * rate for name, factor in DECAYED.items()}, rel=1e-9
        )


def test_a_plateau_lowers_all_rates_alike():
    def make(module):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", patience=0, threshold=1e9, min_lr=1e-9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_acc"}}

    watch = RateWatch()
    fit(Tuned(make_optimizer=make), watch, LayerTransfer(learning_rates=0.5), max_epochs=4)
    assert watch.rates[-1]["net.head.weight"] < watch.rates[0]["net.head.weight"]
    for parameter, factor in DECAYED.items():
        assert watch.rates[-1][parameter] == pytest.approx(factor * watch.rates[-1]["net.head.weight"])


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path):
    def run(epochs, resume=None, **kwargs):
        module = Tuned(make_optimizer=SCHEDULES["cosine"])
        pl.seed_everything(7, workers=True)
        trainer = make_trainer(LayerTransfer("blocks.1", learning_rates=0.5), max_epochs=epochs, **kwargs)
        trainer.fit(module, train_loader(shuffle=False), val_loader(), ckpt_path=resume)
        return trainer, module.state_dict()

    _, whole = run(2)
    trainer, _ = run(1)
    path = str(tmp_path / "half.ckpt")
    trainer.save_checkpoint(path)
    _, resumed = run(2, path)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(("trained_from", "word", "first"), [("head", "head", True), ("blocks.1", "part", False)])
def test_forecast_and_record_are_of_what_is_trained(tmp_path, trained_from, word, first):
    network = Network()
    leep = LEEPCallback(network, history=str(tmp_path), strict=True)
    callbacks = [LayerTransfer(trained_from), leep]
    fit(Tuned(network), *(callbacks if first else reversed(callbacks)))
    (record,) = load_history(str(tmp_path))
    assert (record.trainable, leep.forecast.trainable) == (word, word)
    assert record.trained_from == (trained_from if word == "part" else "")
