"""Batches come from a fork, or from this process where a fork cannot read them."""

import socket
import threading

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.source import forked_batches
from lightning_leep.callbacks.source.forked_batches import ForkedBatches, can_fork
from tests._helpers.compared_training import plain_state
from tests._helpers.small_transfer import DATA, FEW_SCORES, Classifier, fit, make_source, train_loader, trained_state


class Rows(Dataset):
    """Counts, and reads by a function."""

    def __init__(self, read) -> None:
        self.count, self.read = 0, read

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, index):
        self.count += 1
        return self.read(index)


def test_batches_are_the_same_and_nothing_else_is():
    rows = Rows(lambda index: DATA[index])
    batches = ForkedBatches(DataLoader(rows, batch_size=10, pin_memory=True))
    for _ in range(2):
        for (inputs, labels), (expected, classes) in zip(batches, DataLoader(DATA, batch_size=10), strict=True):
            assert torch.equal(inputs, expected)
            assert torch.equal(labels, classes)
    assert (rows.count, len(batches), batches.notes) == (0, 5, ())


@pytest.mark.parametrize("batches", [[], iter([]), DataLoader([])])
def test_no_batches(batches):
    assert list(ForkedBatches(batches)) == []


def test_an_iterator_is_not_used_up():
    numbers = iter(range(3))
    assert list(ForkedBatches(numbers)) == list(numbers) == [0, 1, 2]


class Answering(threading.Thread):
    """Answers questions, in this process alone."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.asked, self.answered = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        while True:
            self.asked.acquire()
            self.answered.release()

    def read(self, index):
        self.asked.release()
        self.answered.acquire()
        return DATA[index]


def connected():
    """Rows over a connection that is open already."""
    here, there = socket.socketpair()

    def read(index):
        here.sendall(b"?")
        assert there.recv(1) == b"?"
        return DATA[index]

    return read


def needs_a_thread():
    thread = Answering()
    thread.start()
    return thread.read


@pytest.mark.parametrize("make_read", [connected, needs_a_thread])
def test_what_a_fork_cannot_read_is_read_here(make_read, monkeypatch):
    monkeypatch.setattr(forked_batches, "PATIENCE", 0.5)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # until the reader is killed
    rows = Rows(make_read())
    batches = ForkedBatches(DataLoader(rows, batch_size=10, collate_fn=list))
    assert [len(batch) for batch in batches] == [10] * 5
    assert rows.count == 50
    (note,) = batches.notes
    assert "read in the process that trains" in note


def test_the_report_says_so():
    loader = train_loader(collate_fn=lambda rows: (torch.stack([row[0] for row in rows]), Labels(rows)))
    callback = LEEPCallback(make_source(), strict=True, dataloader=loader, max_samples=20, scoring=FEW_SCORES)
    fit(Classifier(), callback)
    assert sum("read in the process that trains" in note for note in callback.report.notes) == 1


class Labels(torch.Tensor):
    """Cannot be pickled."""

    def __new__(cls, rows):
        return torch.stack([row[1] for row in rows]).as_subclass(cls)

    def __reduce_ex__(self, protocol):
        raise TypeError("not this one")


class Breaks(IterableDataset):
    def __iter__(self):
        yield from [DATA[0], DATA[1]]
        raise KeyError("third row")


def test_an_error_on_the_way():
    """It is the data set's own, and reading starts nowhere anew."""
    module, callback = Classifier(), LEEPCallback(make_source(), dataloader=DataLoader(Breaks()))
    with pytest.warns(UserWarning, match="KeyError.*third row"):
        fit(module, callback)
    assert trained_state(module) == plain_state()


def test_what_needs_no_fork(monkeypatch):
    assert can_fork(DataLoader(DATA))
    assert can_fork([1, 2])
    assert not can_fork(DataLoader(DATA, num_workers=1))  # which are forks already
    monkeypatch.setattr("sys.platform", "darwin")
    assert not can_fork(DataLoader(DATA))
