"""The rows that all sources are scored on: the same for each, decoded once for those that take the same input."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset

from lightning_leep.ranking.hub import LaterTransform
from lightning_leep.ranking.images import ImageFolder
from lightning_leep.ranking.source import Source
from lightning_leep.scoring.batches import split_pair_or_mapping
from lightning_leep.scoring.shared_rows import given_data
from lightning_leep.utils.checks import check_size

#: Most bytes of decoded batches that are kept for other sources that take the same ones.
KEPT_BYTES = 2**31


class TransformedRows:
    """A data set whose inputs go through a transform, row by row.

    Its rows are pairs ``(input, label)``, or mappings with a label and one input or several.
    """

    def __init__(self, rows: Any, transform: Callable[[Any], Any]) -> None:
        self.rows = rows
        self.transform = transform

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return the transformed input and the label of a row."""
        inputs, label = split_pair_or_mapping(self.rows[index])
        if isinstance(inputs, Mapping) and len(inputs) == 1:
            inputs = next(iter(inputs.values()))
        return self.transform(inputs), label


class SharedBatches:
    """Batches that several sources read in turn from a loader. They are kept for the next one, up to ``most_bytes``."""

    def __init__(self, loader: Iterable[Any], most_bytes: int, notes: tuple[str, ...] = ()) -> None:
        self.loader = loader
        self.num_bytes = 0  #: that are kept
        self.notes = notes  #: what has to be said about the choice of rows
        self.most_rows: int | None = None
        self.largest = 1  #: rows of the largest batch so far
        self.on_batch: Callable[[], None] = lambda: None  #: called after each of the loader's batches
        self._most_bytes = most_bytes
        self._kept: list[Any] | None = None

    @property
    def length(self) -> int | None:
        """Number of the loader's batches, if it tells."""
        return len(self.loader) if isinstance(self.loader, Sized) else None

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches, in parts if a batch has too many rows."""
        for batch in self._batches():
            rows = num_rows(batch)
            self.largest = max(self.largest, rows)
            if self.most_rows is None or rows <= self.most_rows:
                yield batch
            else:
                for start in range(0, rows, self.most_rows):
                    yield _part(batch, rows, slice(start, start + self.most_rows))
            self.on_batch()

    def halve(self) -> bool:
        """Hand out half as many rows at a time from now on; False if that is not possible."""
        rows = min(self.largest, self.most_rows or self.largest)
        self.most_rows = max(1, rows // 2)
        return rows > 1

    def _batches(self) -> Iterator[Any]:
        if self._kept is not None:
            yield from map(_copied, self._kept)  # a source may change what it is given
            return
        kept: list[Any] = []
        size = 0
        for batch in self.loader:
            if self._most_bytes:
                size += sum(leaf.nbytes for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
                if size <= self._most_bytes:
                    kept.append(_copied(batch))
                else:
                    kept, self._most_bytes = [], 0
            yield batch
        if self._most_bytes:
            self._kept, self.num_bytes = kept, size


@dataclass(frozen=True)
class TargetData:
    """What all sources are scored on.

    ``data`` is a data set of labelled rows, whose inputs go through each source's transform; or batches that all
    sources take as they are: a DataLoader or another iterable that can be read again. Of a data set, ``max_samples``
    random rows are taken, the same for all sources.
    """

    data: Any
    max_samples: int | None = None
    batch_size: int = 64
    num_workers: int = 0

    def __post_init__(self) -> None:
        if self.max_samples is not None:
            check_size("max_samples", self.max_samples, 2)
        check_size("batch_size", self.batch_size)
        check_size("num_workers", self.num_workers, 0)
        if isinstance(self.data, Iterator):
            raise ValueError(
                f"`data` must be readable once for each source, got an iterator ({type(self.data).__name__}). Pass a "
                "data set, or the loader itself."
            )
        is_either = self.has_rows or isinstance(self.data, Iterable)
        if isinstance(self.data, IterableDataset | Mapping | str) or not is_either:
            raise TypeError(
                "`data` must be a data set with an index and a length, or batches (such as a DataLoader), got "
                f"{type(self.data).__name__}."
            )

    @cached_property
    def has_rows(self) -> bool:
        """Whether the data are a data set, and not batches."""
        is_set = hasattr(self.data, "__getitem__") and hasattr(self.data, "__len__")
        return is_set and not isinstance(self.data, DataLoader | IterableDataset) and not self._holds_batches

    @property
    def _holds_batches(self) -> bool:
        """Whether a list holds batches: pairs whose labels are a tensor of one dimension."""
        if not isinstance(self.data, list | tuple) or not self.data:
            return False
        first = self.data[0]
        label = first[1] if isinstance(first, tuple | list) and len(first) == 2 else None
        return isinstance(label, Tensor) and label.ndim == 1

    @property
    def name(self) -> str:
        """Class of the data set."""
        data = self.data
        while (inner := getattr(data, "dataset", None)) is not None and inner is not data:
            data = inner
        return type(data).__name__

    def check_rows(self) -> None:
        """Raise ``TypeError`` unless a row has a label, ``ValueError`` unless there are rows."""
        if not self.has_rows:
            return
        if not len(self.data):
            raise ValueError("`data` must hold labelled rows, got an empty data set.")
        try:
            split_pair_or_mapping(self.data[0])
        except TypeError as error:
            raise TypeError(f"The first row of `data` has no label: {error}") from error

    def known_by(self) -> tuple[Any, ...]:
        """What tells the rows from those of another data set: the class, their number, and labels of a few of them."""
        length = len(self.data) if isinstance(self.data, Sized) else None
        labels = []
        if self.has_rows and length:
            with suppress(RuntimeError, TypeError, ValueError):  # of pixels, or only the user can split a row
                labels = [int(split_pair_or_mapping(self.data[i])[1]) for i in range(0, length, -(-length // 16))]
        return self.name, length, self.max_samples, labels

    def key(self, source: Source) -> Hashable:
        """What two sources have in common that are given the same batches."""
        transform = source.transform
        return transform.made.key if isinstance(transform, LaterTransform) else id(transform)

    def batches(self, source: Source, most_bytes: int = 0) -> SharedBatches:
        """This process's share of the rows, as the source takes them; batches refuse a source with a transform."""
        if self.has_rows:
            if source.transform is None and isinstance(self.data, ImageFolder):
                raise ValueError("images of a folder need a transform, such as lightning_leep.ranking.ImageToTensor.")
            rows: Any = self.data if source.transform is None else TransformedRows(self.data, source.transform)
            loader: Any = DataLoader(rows, self.batch_size, num_workers=self.num_workers)
        elif source.transform is not None:
            raise ValueError("a source with a transform needs a data set, but `data` holds batches already.")
        else:
            loader = self.data
        given = given_data(loader, self.max_samples)
        return SharedBatches(given.batches, most_bytes, given.notes)


def num_rows(batch: Any) -> int:
    """Rows of a batch: the length of its first tensor; 1 if it has none."""
    return next((len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim), 1)


def _part(batch: Any, rows: int, part: slice) -> Any:
    return apply_to_collection(batch, Tensor, lambda t: t[part] if t.ndim and len(t) == rows else t)


def _copied(batch: Any) -> Any:
    return apply_to_collection(batch, Tensor, torch.clone)
