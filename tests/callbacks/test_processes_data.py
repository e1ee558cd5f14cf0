"""Two processes: whatever the data and the source, each row counts once and training is as without the callback."""

from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_leep import LEEPCallback, ScoringOptions
from tests._helpers.compared_training import Noisy, explicit
from tests._helpers.distributed import run_processes
from tests._helpers.small_transfer import (
    DATA,
    Classifier,
    fit,
    make_source,
    make_trainer,
    reference_scores,
    train_loader,
    trained_state,
    val_loader,
)

pytestmark = pytest.mark.distributed

SECOND_PASS = ScoringOptions(memory="second_pass")


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*DATA.tensors, strict=True)


class Batches:
    """An iterable of batches with a length and nothing else."""

    def __iter__(self):
        return iter(batches())

    def __len__(self) -> int:
        return 3


def batches():
    return list(zip(*(tensor.split(20) for tensor in DATA.tensors), strict=True))


def drawing(generator):
    return torch.rand(1, generator=generator)


def sorted_by_process() -> list[int]:
    """Rows of which one process scores class 2 alone, and the other one the classes 0 and 1."""
    labels = DATA.tensors[1]
    others, last = (labels < 2).nonzero().flatten(), (labels == 2).nonzero().flatten()
    return torch.stack([others[: len(last)], last[: len(others)]], dim=1).flatten().tolist()


def noisy_loader():
    return train_loader(Noisy(partial(drawing, explicit())))


def everything(rank: int, world_size: int) -> dict[str, Any]:
    """All that has to be seen on two processes, in one start of them."""
    seen: dict[str, Any] = {}

    def train(
        name: str, hide: Any, loader: Any = None, shared: bool = True, silent: bool = False, **kwargs: Any
    ) -> None:
        source = make_source()
        module = Classifier(source if shared else make_source())
        if silent:
            del module.num_classes
        callbacks = [] if hide is None else [LEEPCallback(hide(source), strict=True, history=False, **kwargs)]
        pl.seed_everything(7, workers=True)
        trainer = make_trainer(*callbacks, strategy="ddp", devices=2)
        trainer.fit(module, train_loader() if loader is None else loader, val_loader())
        seen[name] = trained_state(module)
        seen[f"{name} reports"] = [(callback.report.to_dict(), callback.report.notes) for callback in callbacks]

    def function(source):
        return lambda inputs: source(inputs)

    train("plain", None)
    train("function", function)
    train("partial, own weights", partial, shared=False)
    train("list of batches", function, dataloader=batches())
    train("one batch", function, dataloader=[tuple(DATA.tensors)])
    train("stream", function, dataloader=DataLoader(Stream(), batch_size=10))
    train("iterable", function, dataloader=Batches())
    rows = list(range(0, 48, 2))
    train("listed rows", function, loader=train_loader(shuffle=False, sampler=rows))
    train("listed rows plain", None, loader=train_loader(shuffle=False, sampler=rows))
    train("noisy", function, loader=noisy_loader())
    train("noisy plain", None, loader=noisy_loader())
    apart = train_loader(shuffle=False, sampler=sorted_by_process())
    train("classes apart", function, loader=apart, silent=True)
    train("classes apart, second pass", function, loader=apart, silent=True, scoring=SECOND_PASS)
    train("classes apart plain", None, loader=apart, silent=True)
    return seen


@pytest.fixture(scope="module")
def seen():
    return run_processes(everything, 2, timeout=150)


def expected(rows=slice(None)):
    images, labels = (tensor[rows] for tensor in DATA.tensors)
    return reference_scores(make_source().eval()(images), labels)["leep"], len(labels)


PLAIN = {
    **dict.fromkeys(["function", "partial, own weights"], "plain"),
    **dict.fromkeys(["list of batches", "one batch", "stream", "iterable"], "plain"),
    "listed rows": "listed rows plain",
    "noisy": "noisy plain",
    "classes apart": "classes apart plain",
    "classes apart, second pass": "classes apart plain",
}


@pytest.mark.parametrize("name", PLAIN)
def test_training_is_the_same_with_and_without(seen, name):
    for rank in (0, 1):
        assert seen[rank][name] == seen[rank][PLAIN[name]]


@pytest.mark.parametrize("name", ["function", "partial, own weights", "list of batches", "one batch"])
def test_each_row_counts_once(seen, name):
    for rank in (0, 1):
        ((report, notes),) = seen[rank][f"{name} reports"]
        assert (report["leep"], report["num_samples"]) == (pytest.approx(expected()[0], abs=1e-6), 50)
        assert not any("processes" in note for note in notes)


def test_rows_of_a_list(seen):
    ((report, _),) = seen[0]["listed rows reports"]
    leep, rows = expected(slice(0, 48, 2))
    assert (report["leep"], report["num_samples"]) == (pytest.approx(leep, abs=1e-6), rows)


@pytest.mark.parametrize("name", ["classes apart", "classes apart, second pass"])
def test_processes_with_other_labels_find_one_number_of_classes(seen, name):
    leep, rows = expected(sorted_by_process())
    for rank in (0, 1):
        ((report, notes),) = seen[rank][f"{name} reports"]
        assert (report["num_target_classes"], report["num_samples"]) == (3, rows)
        assert report["leep"] == pytest.approx(leep, abs=1e-6)
        assert any("The number of target classes, 3, was found from the labels" in note for note in notes)


@pytest.mark.parametrize(("name", "kind"), [("stream", "DataLoader of a Stream"), ("iterable", "Batches")])
def test_what_cannot_be_divided_is_scored_on_each_and_noted(seen, name, kind):
    ((report, notes),) = seen[0][f"{name} reports"]
    assert (report["leep"], report["num_samples"]) == (pytest.approx(expected()[0], abs=1e-6), 100)
    assert sum(f"Each of the 2 processes scored all that `dataloader`, a {kind}, yields" in note for note in notes) == 1


def test_one_process_has_nothing_to_note():
    callback = LEEPCallback(make_source(), strict=True, dataloader=DataLoader(Stream(), batch_size=10))
    fit(Classifier(), callback)
    assert callback.report.num_samples == 50
    assert not any("processes" in note for note in callback.report.notes)
