"""Which rows are scored, that the scores are those of these rows, and what training does to a batch beside that."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.source.training_data import skipped_batch_hooks
from lightning_leep.scoring.shared_rows import given_data
from tests._helpers.recording_source import score
from tests._helpers.small_transfer import (
    DATA,
    FEW_SCORES,
    C,
    Classifier,
    LightningClassifier,
    Stream,
    fit,
    make_data,
    make_source,
    reference_scores,
    train_loader,
)

pytestmark = pytest.mark.usefixtures("no_forks")


def test_scores_are_those_of_all_training_rows_once():
    report, source = score()
    images, labels = DATA.tensors
    expected = reference_scores(source.network.eval()(images), labels)
    assert report.leep == pytest.approx(expected["leep"], abs=1e-6)
    assert report.eep_accuracy == pytest.approx(expected["eep_accuracy"])
    assert source.indices == list(range(50))
    assert not any(source.modes)
    assert report.num_samples == 50
    assert report.class_counts == tuple(torch.bincount(labels, minlength=C).tolist())


def test_max_samples_is_a_random_subset_that_no_seed_of_the_user_changes():
    _, source = score(max_samples=20)
    _, again = score(max_samples=20, trainer_options={"seed": 8})
    assert len(set(source.indices)) == 20
    assert source.indices == again.indices
    assert source.indices != list(range(20))  # folders are sorted by class


@pytest.mark.parametrize(
    ("options", "loader", "wanted"),
    [
        ({"limit_train_batches": 0.4}, {"shuffle": False}, range(20)),
        ({"limit_train_batches": 2}, {"shuffle": False, "sampler": list(range(49, -1, -1))}, range(49, 29, -1)),
        ({"overfit_batches": 2}, {}, range(20)),
        ({"fast_dev_run": 2}, {"shuffle": False}, range(20)),
        ({"limit_train_batches": 7}, {"shuffle": False, "batch_size": 40, "drop_last": True}, range(50)),
        ({"limit_train_batches": 2}, {}, 20),
        ({"fast_dev_run": True}, {}, 10),
    ],
)
def test_as_many_rows_as_training_may_use(options, loader, wanted):
    _, source = score(train_loader(DATA, **loader), trainer_options=options)
    if isinstance(wanted, range):
        assert source.indices == list(wanted)
    else:
        assert len(set(source.indices)) == wanted


def test_fast_dev_run_with_batches_of_one_row_scores_two():
    class Frozen(Classifier):
        def on_fit_start(self):
            self.body[1].eval()  # BatchNorm cannot train on one row

    callback = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True)
    fit(Frozen(), callback, loader=train_loader(DATA, batch_size=1), fast_dev_run=True)
    assert callback.report.num_samples == 2


def test_given_loader_instead_of_the_training_data():
    others = make_data(30, seed=6)
    report, source = score(dataloader=DataLoader(others, batch_size=7, shuffle=True, drop_last=True))
    assert torch.equal(torch.cat(source.shown), others.tensors[0])
    assert report.num_samples == 30


@pytest.mark.parametrize(
    "loader",
    [lambda: DataLoader(Stream(), batch_size=10), lambda: [(DATA.tensors[0], DATA.tensors[1])]],
    ids=["iterable data set", "list of batches"],
)
def test_training_data_without_an_index_asks_for_a_loader(loader):
    with pytest.raises(ValueError, match="Pass `dataloader=`"):
        score(loader())


def test_stream_as_given_loader():
    loader = DataLoader(Stream(), batch_size=10)
    report, _ = score(loader, dataloader=DataLoader(Stream(), batch_size=10))
    assert report.num_samples == 50
    assert not any("processes" in note for note in report.notes)
    with pytest.raises(ValueError, match="must not be the training loader itself"):
        score(loader, dataloader=loader)
    with pytest.raises(ValueError, match="`max_samples` needs a DataLoader over a data set with an index"):
        score(dataloader=loader, max_samples=10)


class Shifted(DataLoader):
    """Changes its batches where a copy of it would not."""

    def __iter__(self):
        return ((inputs - 100, labels) for inputs, labels in super().__iter__())


class Rebatched(DataLoader):
    def _get_iterator(self):
        return iter(list(super()._get_iterator())[:2])


@pytest.mark.parametrize("kind", [Shifted, Rebatched])
def test_loader_that_makes_its_own_batches(kind):
    """It cannot be copied, but it can be read."""
    with pytest.raises(ValueError, match=f"{kind.__name__}, the training loader, makes .* Pass `dataloader=`"):
        score(kind(DATA, batch_size=10))
    read, expected = (
        torch.cat([inputs for inputs, _ in batches])
        for batches in (given_data(kind(DATA, batch_size=10), None).batches, kind(DATA, batch_size=10))
    )
    assert torch.equal(read, expected)
    with pytest.raises(ValueError, match=f"`max_samples` needs .* got {kind.__name__}"):
        given_data(kind(DATA, batch_size=10), 10)


def test_the_training_loader_itself_may_be_given():
    loader = train_loader(DATA, num_workers=1, persistent_workers=True)
    assert score(loader, dataloader=loader)[0].num_samples == 50


def test_several_training_loaders_ask_for_one():
    class Joint(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx)

    with pytest.raises(ValueError, match="one torch DataLoader .* got dict"):
        fit(Joint(), LEEPCallback(make_source(), strict=True), loader={"a": train_loader(), "b": train_loader()})


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
