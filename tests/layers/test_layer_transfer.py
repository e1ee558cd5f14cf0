"""Training from one layer on: what stays, what learns, how fast; resumed, by two processes, beside LEEPCallback."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_leep import LayerTransfer, LEEPCallback
from lightning_leep.records import load_history
from tests._helpers.distributed import run_processes
from tests._helpers.small_transfer import C, Classifier, D, fit, make_trainer, train_loader, val_loader

pytestmark = pytest.mark.usefixtures("no_forks")


class Block(nn.Module):
    """A residual block with a normalisation that keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.second(self.norm(self.first(x)).relu())


class Network(nn.Module):
    """A stem with a parameter of its own, three blocks, a last normalisation, and a head unless it is taken away."""

    def __init__(self, num_outputs: int | None = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shift = nn.Parameter(torch.zeros(8))
        self.stem = nn.Linear(D, 8)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.norm = nn.LayerNorm(8)
        self.head = nn.Identity() if num_outputs is None else nn.Linear(8, num_outputs)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x) + self.shift)))


class Tuned(Classifier):
    """Fine-tunes a copy of a network with a new head of its own."""

    def __init__(self, network: nn.Module | None = None, make_optimizer=None) -> None:
        super().__init__()
        del self.body, self.head, self.source
        self.net = copy.deepcopy(network or Network())
        self.net.head = nn.Linear(8, C)
        self.make_optimizer = make_optimizer

    def forward(self, inputs):
        return self.net(inputs)

    def configure_optimizers(self):
        return self.make_optimizer(self) if self.make_optimizer else torch.optim.SGD(self.parameters(), lr=0.1)


class Beside(Tuned):
    """The head lies beside the backbone, and is registered first."""

    def __init__(self) -> None:
        super().__init__()
        del self.net
        self.classifier = nn.Linear(8, C)
        self.backbone = Network(None)

    def forward(self, inputs):
        return self.classifier(self.backbone(inputs))


def moved(module, before):
    """Names of the parameters and buffers that training changed."""
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def trained(module, *callbacks, **kwargs):
    before = copy.deepcopy(module.state_dict())
    fit(module, *callbacks, **kwargs)
    return {name for name in moved(module, before) if "accuracy" not in name}


STAYS = {
    "net.blocks.2": ("net.shift", "net.stem", "net.blocks.0", "net.blocks.1"),
    "blocks.1": ("net.shift", "net.stem", "net.blocks.0"),
    "blocks": ("net.shift", "net.stem"),
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


def with_schedule(make_schedule, interval="step"):
    def make(module):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        schedule = make_schedule(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}

    return make


lr_scheduler = torch.optim.lr_scheduler
SCHEDULES = {
    "none": lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
    "cosine": with_schedule(lambda o: lr_scheduler.CosineAnnealingLR(o, 10)),
    "step": with_schedule(lambda o: lr_scheduler.StepLR(o, 1), "epoch"),
    "lambda": with_schedule(lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step))),
    "multiplicative": with_schedule(lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9)),
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


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_keep_their_ratio_under_every_schedule(name):
    plain, decayed = RateWatch(), RateWatch()
    fit(Tuned(make_optimizer=SCHEDULES[name]), plain)
    fit(Tuned(make_optimizer=SCHEDULES[name]), decayed, LayerTransfer(learning_rates=0.5))
    assert len(plain.rates) == len(decayed.rates) == 10
    for alone, scaled in zip(plain.rates, decayed.rates, strict=True):
        assert scaled.keys() == alone.keys()
        for parameter, factor in DECAYED.items():
            assert scaled[parameter] == pytest.approx(factor * alone[parameter], rel=1e-9)


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


def test_factors_by_name_take_the_longest_name_that_fits():
    watch = RateWatch()
    fit(Tuned(), watch, LayerTransfer(learning_rates={"net": 0.1, "net.blocks.2": 0.5, "net.head": 1}))
    rates = watch.rates[0]
    assert rates["net.stem.weight"] == pytest.approx(0.01)
    assert rates["net.blocks.2.norm.bias"] == pytest.approx(0.05)
    assert rates["net.head.bias"] == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"\['nett'\] fit no parameter"):
        fit(Tuned(), LayerTransfer(learning_rates={"nett": 0.1}))


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path):
    def run(epochs, resume=None, **kwargs):
        module = Tuned(make_optimizer=SCHEDULES["cosine"])
        pl.seed_everything(7, workers=True)
        trainer = make_trainer(LayerTransfer("blocks.1", learning_rates=0.5), max_epochs=epochs, **kwargs)
        trainer.fit(module, train_loader(shuffle=False), val_loader(), ckpt_path=resume)
        return trainer, module.state_dict()

    _, whole = run(4)
    trainer, _ = run(2)
    path = str(tmp_path / "half.ckpt")
    trainer.save_checkpoint(path)
    _, resumed = run(4, path)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("trained_from", "word"), [("head", "head"), ("blocks.1", "part"), (None, "all")])
def test_forecast_and_record_are_of_what_is_trained(tmp_path, trained_from, word, first):
    network = Network()
    leep = LEEPCallback(network, history=str(tmp_path), strict=True)
    callbacks = [LayerTransfer(trained_from), leep]
    fit(Tuned(network), *(callbacks if first else reversed(callbacks)))
    (record,) = load_history(str(tmp_path))
    assert (record.trainable, leep.forecast.trainable) == (word, word)


def two_processes(rank, world_size):
    module = Tuned()
    before = copy.deepcopy(module.state_dict())
    pl.seed_everything(7, workers=True)
    trainer = make_trainer(LayerTransfer("blocks.1", learning_rates=0.5), strategy="ddp", devices=2)
    trainer.fit(module, train_loader(shuffle=False), val_loader())
    return moved(module, before), {n: v.tolist() for n, v in module.state_dict().items() if "accuracy" not in n}


@pytest.mark.distributed
def test_two_processes_train_the_same_layers_without_unused_parameters():
    (names, first), (_, second) = run_processes(two_processes, 2)
    weights = [name for name in first if "running" not in name and "num_batches" not in name]
    assert {name: first[name] for name in weights} == {name: second[name] for name in weights}
    assert not any(name.startswith(("net.stem", "net.blocks.0", "net.shift")) for name in names)
    assert {"net.blocks.1.second.weight", "net.head.weight"} <= names
