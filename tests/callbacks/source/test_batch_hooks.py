"""What training does to a batch and scoring does not is said."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl

from lightning_leep import LEEPCallback, ScoringOptions
from lightning_leep.callbacks.source.training_data import skipped_batch_hooks
from tests._helpers.small_transfer import Classifier, LightningClassifier, fit, make_source


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


@pytest.mark.parametrize("split_batch", [None, lambda batch: batch])
def test_note_in_the_report(split_batch):
    """A function of the user's may already do what the hooks do."""
    callback = LEEPCallback(make_source(), scoring=ScoringOptions(split_batch=split_batch), strict=True)
    fit(Normalises(), callback, max_epochs=1)
    assert any("does not run" in note for note in callback.report.notes) == (split_batch is None)
