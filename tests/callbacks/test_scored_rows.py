"""Which rows are scored, and that the scores are those of these rows."""

import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lightning_leep import LEEPCallback
from tests.callbacks.support import DATA, C, Classifier, fit, make_data, make_source, reference_scores, train_loader


class Recorder(nn.Module):
    """A source that remembers the rows that it was shown, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.network = make_source()
        self.shown: list[torch.Tensor] = []
        self.modes: list[bool] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.shown.append(inputs)
        self.modes.append(any(layer.training for layer in self.modules()))
        return self.network(inputs)

    @property
    def indices(self) -> list[int]:
        """Rows of ``DATA`` that were shown."""
        rows = torch.cat(self.shown)
        return [int((DATA.tensors[0] == row).all(1).nonzero().item()) for row in rows]


def score(loader=None, source=None, trainer_options=None, **kwargs):
    """Fit with the callback; return it and its source."""
    source = source or Recorder()
    callback = LEEPCallback(source, strict=True, **kwargs)
    fit(Classifier(), callback, loader=train_loader(DATA) if loader is None else loader, **(trainer_options or {}))
    return callback.report, source


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


def test_max_samples_is_a_random_subset_that_the_seed_alone_decides():
    _, source = score(max_samples=20)
    _, again = score(max_samples=20, trainer_options={"seed": 8})
    _, other = score(max_samples=20, seed=1)
    assert len(set(source.indices)) == 20
    assert source.indices == again.indices
    assert source.indices != other.indices
    assert source.indices != list(range(20))  # folders are sorted by class
    report, source = score(max_samples=70)
    assert (report.num_samples, len(source.indices)) == (50, 50)


@pytest.mark.parametrize(
    ("options", "shuffle", "wanted"),
    [
        ({"limit_train_batches": 2}, False, range(20)),
        ({"limit_train_batches": 0.4}, False, range(20)),
        ({"overfit_batches": 2}, True, range(20)),
        ({"fast_dev_run": 2}, False, range(20)),
        ({"limit_train_batches": 1.0}, False, range(50)),
        ({"limit_train_batches": 7}, False, range(50)),
        ({"limit_train_batches": 2}, True, 20),
        ({"fast_dev_run": True}, True, 10),
    ],
)
def test_as_many_rows_as_training_may_use(options, shuffle, wanted):
    _, source = score(train_loader(DATA, shuffle=shuffle), trainer_options=options)
    if isinstance(wanted, range):
        assert source.indices == list(wanted)
    else:
        assert len(set(source.indices)) == wanted


def test_rows_of_a_dropped_last_batch_count():
    assert score(train_loader(DATA, batch_size=40, drop_last=True))[0].num_samples == 50


def test_fast_dev_run_with_batches_of_one_row_scores_two():
    class Frozen(Classifier):
        def on_fit_start(self):
            self.body[1].eval()  # BatchNorm cannot train on one row

    callback = LEEPCallback(make_source(), strict=True)
    fit(Frozen(), callback, loader=train_loader(DATA, batch_size=1), fast_dev_run=True)
    assert callback.report.num_samples == 2


LOADERS = {
    "subset sampler": (lambda: train_loader(DATA, shuffle=False, sampler=SubsetRandomSampler([4, 2, 30])), [4, 2, 30]),
    "subset": (lambda: train_loader(Subset(DATA, [4, 2, 30])), [4, 2, 30]),
    "concatenation": (lambda: train_loader(ConcatDataset([Subset(DATA, [7, 8]), Subset(DATA, [1])])), [7, 8, 1]),
    "bootstrap": (lambda: train_loader(DATA, shuffle=False, sampler=RandomSampler(DATA, True, 10)), list(range(50))),
    "batch sampler": (lambda: DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 8, True)), [*range(50)]),
    "batch sampler as sampler": (
        lambda: DataLoader(DATA, sampler=BatchSampler(SubsetRandomSampler([5, 6, 9, 1]), 2, False), batch_size=None),
        [5, 6, 9, 1],
    ),
}


@pytest.mark.parametrize("name", LOADERS)
def test_sampler(name):
    loader, wanted = LOADERS[name]
    report, source = score(loader())
    assert source.indices == wanted
    assert not any("draws it" in note for note in report.notes)


@pytest.mark.parametrize(
    ("loader", "rows", "name"),
    [
        (
            lambda: train_loader(DATA, shuffle=False, sampler=WeightedRandomSampler([1.0] * 40 + [0.0] * 10, 15)),
            40,
            "Wei",
        ),
        (lambda: DataLoader(DATA, batch_sampler=[[0, 1], [2, 3]]), 50, "list"),
    ],
)
def test_sampler_that_cannot_be_followed_is_noted(loader, rows, name):
    report, _ = score(loader())
    assert report.num_samples == rows
    assert any(name in note and "draws it" in note for note in report.notes)


def test_given_loader_instead_of_the_training_data():
    others = make_data(30, seed=6)
    report, source = score(dataloader=DataLoader(others, batch_size=7, shuffle=True, drop_last=True))
    assert torch.equal(torch.cat(source.shown), others.tensors[0])
    assert report.num_samples == 30
    report, _ = score(dataloader=[(others.tensors[0][:12], others.tensors[1][:12])])
    assert report.num_samples == 12


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*DATA.tensors, strict=True)


@pytest.mark.parametrize(
    "loader",
    [lambda: DataLoader(Stream(), batch_size=10), lambda: [(DATA.tensors[0], DATA.tensors[1])]],
    ids=["iterable data set", "list of batches"],
)
def test_training_data_without_an_index_asks_for_a_loader(loader):
    with pytest.raises(ValueError, match="Pass `dataloader=`"):
        score(loader())


def test_stream_as_given_loader():
    report, _ = score(DataLoader(Stream(), batch_size=10), dataloader=DataLoader(Stream(), batch_size=10))
    assert report.num_samples == 50
    loader = DataLoader(Stream(), batch_size=10)
    with pytest.raises(ValueError, match="another loader than the one that is trained on"):
        score(loader, dataloader=loader)
    with pytest.raises(ValueError, match="`max_samples` needs a DataLoader over a data set with an index"):
        score(dataloader=DataLoader(Stream(), batch_size=10), max_samples=10)


def test_the_training_loader_itself_may_be_given():
    loader = train_loader(DATA, num_workers=1, persistent_workers=True)
    assert score(loader, dataloader=loader)[0].num_samples == 50


def test_several_training_loaders_ask_for_one():
    class Joint(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx)

    with pytest.raises(ValueError, match="one torch DataLoader .* got dict"):
        fit(Joint(), LEEPCallback(make_source(), strict=True), loader={"a": train_loader(), "b": train_loader()})
