"""What is read off a Trainer, in runs of real ones."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lightning_leep.callbacks.fit.trainer_facts import TrainerFacts
from tests._helpers.small_transfer import Classifier, Stream, fit, make_data, make_trainer, train_loader, val_loader


class Reads(pl.Callback):
    def __init__(self, monitor="val_acc", first_epoch=0):
        self.arguments = monitor, first_epoch

    def on_train_start(self, trainer, pl_module):
        self.facts = TrainerFacts.of(trainer, *self.arguments)
        trainer.should_stop = True


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"max_epochs": 3}, 3),
        ({"max_epochs": -1, "max_steps": 10}, 2),  # 5 batches an epoch
        ({"max_epochs": 9, "max_steps": 10}, 2),
        ({"max_epochs": -1, "max_steps": 4, "accumulate_grad_batches": 2}, 4 / 3),  # steps of 2, 2 and 1 batches
        ({"max_epochs": 2, "loader": DataLoader(Stream(), batch_size=10)}, 2),
        # Validations are counted there; how many there will be is unknown.
        ({"max_epochs": 2, "loader": DataLoader(Stream(), batch_size=10), "val_check_interval": 2}, None),
        ({"max_epochs": 2, "loader": DataLoader(Stream(), batch_size=10), "max_steps": 3}, 2),
    ],
)
def test_planned_epochs(options, epochs):
    callback = Reads()
    fit(Classifier(), callback, **options)
    assert callback.facts.max_epochs == (None if epochs is None else pytest.approx(epochs))


def test_epochs_of_another_module_do_not_count():
    callback = Reads(first_epoch=7)
    fit(Classifier(), callback, max_epochs=12, limit_train_batches=1)
    assert callback.facts.max_epochs == 5


class ManyLoaders(Classifier):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        inputs, labels = batch
        self.log("val_acc", (self(inputs).argmax(1) == labels).float().mean())


@pytest.mark.parametrize(
    ("loaders", "monitor", "options", "expected"),
    [
        ([40], "val_acc", {}, 40),
        ([40], "val_acc", {"limit_val_batches": 1}, 20),
        ([40], "val_acc", {"num_sanity_val_steps": 0}, 40),
        ([40, 30], "val_acc/dataloader_idx_1", {}, 30),
        ([40, 30], "val_acc/dataloader_idx_2", {}, None),
        ([40, 30], None, {}, None),
        (["stream"], "val_acc", {}, None),
    ],
)
def test_rows_of_a_validation(loaders, monitor, options, expected):
    callback = Reads(monitor)
    data = [Stream() if n == "stream" else make_data(n, seed=5) for n in loaders]
    module = ManyLoaders() if len(loaders) > 1 else Classifier()
    make_trainer(callback, **options).fit(module, train_loader(), [DataLoader(d, batch_size=20) for d in data])
    assert callback.facts.test_size == expected


class Warmup(Classifier):
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.25)
        return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1)]


class Unoptimised(Classifier):
    def configure_optimizers(self):
        return None


@pytest.mark.parametrize(
    ("kind", "expected"), [(Classifier, ("SGD", 0.1)), (Warmup, ("AdamW", 0.25)), (Unoptimised, ("", None))]
)
def test_the_optimizer_and_the_rate_that_its_schedule_starts_from(kind, expected):
    callback, module = Reads(), kind()
    module.automatic_optimization = kind is not Unoptimised
    make_trainer(callback).fit(module, train_loader(), val_loader())
    assert (callback.facts.optimizer, callback.facts.learning_rate) == expected
