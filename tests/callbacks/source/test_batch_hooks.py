"""What training does to a batch and scoring does not is said."""

from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning as pl

from lightning_leep import LEEPCallback, ScoringOptions
from tests._helpers.small_transfer import (
    DATA,
    Classifier,
    LightningClassifier,
    make_source,
    make_trainer,
    train_loader,
    val_loader,
)


def make_other_trainer(callback) -> Any:
    """One of ``lightning.pytorch``."""
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return lightning.pytorch.Trainer(max_epochs=1, callbacks=callback, **options)


class Normalises(Classifier):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] / 2, batch[1]


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return train_loader(DATA)

    def val_dataloader(self):
        return val_loader()


class MixesUp(Data):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch


@pytest.mark.parametrize(
    ("module_class", "datamodule", "hooks"),
    [
        (Classifier, None, []),
        (LightningClassifier, None, []),
        (Classifier, Data, []),
        (Normalises, None, ["Normalises.on_after_batch_transfer"]),
        (Normalises, Data, ["Normalises.on_after_batch_transfer"]),
        (Normalises, MixesUp, ["MixesUp.on_before_batch_transfer", "MixesUp.on_after_batch_transfer"]),
    ],
)
def test_batch_hooks_that_do_not_run_are_noted(module_class, datamodule, hooks):
    make = make_other_trainer if module_class is LightningClassifier else make_trainer

    def notes(**kwargs):
        callback = LEEPCallback(make_source(), strict=True, history=False, **kwargs)
        data = {"train_dataloaders": train_loader(DATA), "val_dataloaders": val_loader()}
        make(callback).fit(module_class(), **({"datamodule": datamodule()} if datamodule else data))
        return [note for note in callback.report.notes if "does not run" in note]

    assert [note.partition(" ")[0] for note in notes()] == hooks
    assert all("pass `split_batch=`" in note for note in notes())
    # A function of the user's may already do what the hooks do.
    assert notes(scoring=ScoringOptions(split_batch=lambda batch: batch)) == []
