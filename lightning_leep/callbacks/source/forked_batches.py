"""Read batches in a fork of this process, so that whatever changes by reading changes there."""

import os
import pickle
import stat
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing import current_process
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

#: Seconds after which a batch is not waited for any more. A lock that another thread held during the fork never opens.
PATIENCE = 60


class ForkedBatches:
    """Batches of a loader, read in a process that is forked for each reading and ends with it.

    Whatever the data set, its transforms, the sampler and the collate function keep or draw from stays as it is here.
    What processes share is not protected: files that the data set writes, positions in open ones, shared memory. If the
    first batch cannot be read there within a minute (its tensors are on a GPU, say, or its data set needs a thread or a
    connection of this process), all batches are read here, and ``notes`` says so.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        reader: DataLoader = DataLoader(
            _Reader(self.batches),
            batch_size=None,
            num_workers=1,
            timeout=PATIENCE,
            multiprocessing_context="fork",
            # Else the seed of the worker would come from the generator that training draws from.
            generator=torch.Generator().manual_seed(0),
        )
        try:
            with warnings.catch_warnings():
                # Python 3.12 warns of forks beside threads. It does so after the fork: an error would leave a process.
                warnings.simplefilter("ignore", DeprecationWarning)
                batches: Iterable[Any] = map(pickle.loads, reader)
            first = list(islice(batches, 1))
        except Exception as error:
            self.notes = (
                "The scored rows were read in the process that trains, since another one could not read them "
                f"({type(error).__name__}). A counter, a cache or a random generator of the data set goes on from "
                "where scoring left it. A loader with workers (`num_workers=1`) prevents that.",
            )
            traceback.clear_frames(error.__traceback__)  # which keep the reader, and so its process
            first, batches = [], self.batches
        yield from first
        yield from batches


class _Reader(IterableDataset):
    """The batches, pickled where an error in that can be reported. It is read in the fork alone."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[bytes]:
        _let_go_of_connections()
        if isinstance(self.batches, DataLoader):
            self.batches.pin_memory = False  # needs the GPU, which a fork cannot use
        for batch in self.batches:
            yield bytes(ForkingPickler.dumps(batch))


def can_fork(batches: Iterable[Any]) -> bool:
    """Whether a loader is read in this process, and could be read in a fork of it.

    Worker processes read copies already. Forks are safe enough on Linux alone, where loaders make their workers so.
    """
    workers = getattr(batches, "num_workers", 0)
    return sys.platform == "linux" and not workers and not current_process().daemon


def _let_go_of_connections() -> None:
    """Replace each socket by an empty file: an encrypted connection that two processes use fails in both."""
    empty = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing itself was open
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                os.dup2(empty, int(name))
