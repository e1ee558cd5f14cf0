"""Training with the callback is training without it, bit by bit: weights, buffers, modes, order of rows, losses."""

import random
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from lightning_leep import LEEPCallback
from tests._helpers.compared_training import Noisy, explicit, run
from tests._helpers.small_transfer import FEW_SCORES, Classifier, fit, make_data, train_loader, trained_state


class FrozenBatchNorm(Classifier):
    """BatchNorm is kept in evaluation mode, as users do for small batches: once, before training starts."""

    def on_fit_start(self):
        self.body[1].eval()


def drawn_everywhere():
    return random.random() + np.random.rand() + torch.rand(1)


LOADERS = {
    "shuffled": lambda: train_loader(),
    "augmented by Python, NumPy and torch": lambda: train_loader(Noisy(drawn_everywhere)),
    "generator of the loader": lambda: train_loader(generator=explicit()),
    "generator of the sampler": lambda: train_loader(
        shuffle=False, sampler=WeightedRandomSampler([1.0, 3.0] * 25, 40, generator=explicit())
    ),
    "persistent workers that augment": lambda: train_loader(
        Noisy(drawn_everywhere), num_workers=1, persistent_workers=True
    ),
}


@cache
def plain(name):
    return run(LOADERS[name](), callback=False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shared"), [*((name, True) for name in LOADERS), ("shuffled", False)])
def test_loader(name, shared):
    scoring = None if shared and "augmented" in name else FEW_SCORES
    assert run(LOADERS[name](), callback=True, shared=shared, scoring=scoring) == plain(name)


def test_losses_depend_on_the_order_that_is_compared():
    """The comparison above could not fail otherwise."""
    assert plain("generator of the loader") != run(train_loader(generator=explicit(4)), callback=False)


def test_batch_norm_that_the_user_froze():
    plain = run(train_loader(), callback=False, module_class=FrozenBatchNorm)
    assert run(train_loader(), callback=True, module_class=FrozenBatchNorm) == plain
    assert plain["weights"]["body.1.running_mean"] == [0.0] * 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16-mixed", "val_check_interval": 0.4, "num_sanity_val_steps": 0},
        {"precision": "64-true", "accumulate_grad_batches": 2, "reload_dataloaders_every_n_epochs": 1},
    ],
    ids=str,
)
def test_trainer_options(options):
    assert run(train_loader(), callback=True, **options) == run(train_loader(), callback=False, **options)


class Stream(IterableDataset):
    """Goes on where the last reading stopped, as a stream does."""

    def __init__(self) -> None:
        self.rows = iter(list(make_data()) * 9)

    def __iter__(self):
        for _ in range(50):
            yield next(self.rows)


@pytest.mark.slow
def test_stream_and_generator_that_a_given_loader_shares_with_training():
    """Each reading of a loader draws a seed from its generator."""

    def left(given_workers=None):
        stream, generator, given = Stream(), explicit(), None
        if given_workers is not None:
            given = DataLoader(stream, batch_size=10, generator=generator, num_workers=given_workers)
        loader = DataLoader(stream, batch_size=10, generator=generator)
        return run(loader, callback=given is not None, dataloader=given), generator.get_state().tolist()

    assert left(given_workers=0) == left(given_workers=1) == left()


def doubling(graph, inputs):
    """A compiler that shows whether compiled code runs: it doubles what a graph returns."""
    return lambda *args: tuple(2 * out for out in graph(*args))


class Compiled(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.compiled = torch.compile(self.body[0], backend=doubling, dynamic=False)

    def source_logits(self, inputs):
        return self.compiled(inputs)

    def forward(self, inputs):
        return self.head(self.compiled(inputs))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs torch 2.6")
def test_compiled_code_is_not_compiled_for_scoring(monkeypatch):
    """With two versions at most, one for whole batches and one for the last, none is left for a third."""
    monkeypatch.setattr("torch._dynamo.config.recompile_limit", 2)
    after = []
    for scored in (False, True):
        torch._dynamo.reset()
        module, callback = Compiled(), LEEPCallback(monitor=None, strict=True)
        fit(module, *[callback][: int(scored)], loader=train_loader(batch_size=20), limit_val_batches=0)
        after.append(trained_state(module))
    assert after[0] == after[1]
    assert callback.report.num_features == 6


def test_source_is_in_no_module_optimizer_or_checkpoint(tmp_path):
    source = nn.Linear(6, 5)
    module = Classifier()
    trainer = fit(module, LEEPCallback(source, strict=True, scoring=FEW_SCORES))
    own = {id(p) for p in source.parameters()}
    assert own.isdisjoint(map(id, trainer.model.parameters()))
    assert own.isdisjoint(id(p) for group in trainer.optimizers[0].param_groups for p in group["params"])
    assert all(p.grad is None for p in source.parameters())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == set(module.state_dict())
    assert not any(isinstance(value, torch.Tensor) for value in tree_leaves(checkpoint["callbacks"]))
