"""What training does to a batch and scoring does not is said."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.source.training_data import skipped_batch_hooks
from tests._helpers.small_transfer import FEW_SCORES, Classifier, LightningClassifier, fit, make_source


class Normalises(Classifier):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] / 2, batch[1]


class MixesUp(pl.LightningDataModule):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch


@pytest.mark.parametrize(
    ("module", "datamodule", "hooks"),
    [
        (Classifier, None, []),
        (LightningClassifier, None, []),
        (Classifier, pl.LightningDataModule, []),
        (Normalises, None, ["Normalises.on_after_batch_transfer"]),
        (Normalises, pl.LightningDataModule, ["Normalises.on_after_batch_transfer"]),
        (Normalises, MixesUp, ["MixesUp.on_before_batch_transfer", "MixesUp.on_after_batch_transfer"]),
    ],
)
def test_hooks_that_do_not_run(module, datamodule, hooks):
    notes = skipped_batch_hooks(SimpleNamespace(datamodule=datamodule and datamodule()), module())
    assert [note.partition(" ")[0] for note in notes] == hooks
    assert all("pass `split_batch=`" in note for note in notes)


def test_note_in_the_report():
    """A function of the user's may already do what the hooks do."""
    options = {}, {"split_batch": lambda batch: batch}
    callbacks = [LEEPCallback(make_source(), scoring=replace(FEW_SCORES, **o), strict=True) for o in options]
    fit(Normalises(), *callbacks, max_epochs=1)
    noted = [any("does not run" in note for note in callback.report.notes) for callback in callbacks]
    assert noted == [True, False]
