"""Records of earlier transfers in a folder, one JSON file a run: no run waits for another or overwrites it."""

import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, overload

from lightning_leep.records.folder import Folder, is_local, open_folder, write_whole
from lightning_leep.records.transfer import TransferRecord

#: Longest reason, in characters, for which a file is left out: it may quote what the file holds.
MAX_REASON = 200


class History(Sequence[TransferRecord]):
    """An immutable list of transfers, oldest first whatever the order they are given in.

    Example:
        >>> history = History()
        >>> len(history), history.to_dicts()
        (0, [])
    """

    def __init__(self, records: Iterable[TransferRecord] = ()) -> None:
        ordered = sorted(records, key=lambda record: record.created)
        if len({record.created for record in ordered}) < len(ordered):
            # The text breaks ties, so that no result depends on the order in which a folder lists its files.
            ordered.sort(key=lambda record: (record.created, record.to_json()))
        self._records = tuple(ordered)

    def __len__(self) -> int:
        """Number of transfers."""
        return len(self._records)

    def __iter__(self) -> Iterator[TransferRecord]:
        """The transfers, oldest first."""
        return iter(self._records)

    @overload
    def __getitem__(self, index: int) -> TransferRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "History": ...
    def __getitem__(self, index: int | slice) -> "TransferRecord | History":
        """One transfer, or the history of a slice."""
        return History(self._records[index]) if isinstance(index, slice) else self._records[index]

    def __repr__(self) -> str:
        return f"History of {len(self)} transfers"

    def filter(
        self,
        *,
        trainable: str | None = None,
        target_name: str | None = None,
        source_name: str | None = None,
        num_target_classes: int | None = None,
        where: Callable[[TransferRecord], bool] | None = None,
    ) -> "History":
        """The transfers that agree with everything that is not None.

        Args:
            trainable: What was trainable.
            target_name: Name of the target data.
            source_name: Name of the source model.
            num_target_classes: C.
            where: Any other condition on a record.
        """
        return History(
            record
            for record in self
            if trainable in (None, record.trainable)
            and target_name in (None, record.target_name)
            and source_name in (None, record.source_name)
            and num_target_classes in (None, record.report.num_target_classes)
            and (where is None or where(record))
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """One flat dictionary of scalars a transfer: ``pandas.DataFrame(history.to_dicts())`` is a table."""
        return [record.to_flat_dict() for record in self]


def save_record(record: TransferRecord, folder: Folder) -> str:
    """Write a record into a folder as a file of its own, whole or not at all.

    Any number of processes may write into one folder at the same time.

    Args:
        record: The transfer.
        folder: Path or fsspec URL; it is made if it does not exist.

    Returns:
        Path of the new file, with its protocol where it is not a local one.

    Raises:
        ValueError: If ``folder`` is a chain of file systems, or its protocol is unknown.
    """
    fs, root = open_folder(folder)
    fs.makedirs(root, exist_ok=True)
    stamp = datetime.fromisoformat(record.created).strftime("%Y%m%dT%H%M%S")
    path = write_whole(fs, root, f"{stamp}-{uuid.uuid4().hex}.json", record.to_json().encode())
    return path if is_local(fs) else fs.unstrip_protocol(path)


def load_history(folder: Folder) -> History:
    """Read every record in a folder (the files ``*.json`` directly in it).

    A file that is truncated, something else than a record, or written by a newer version is left out, and one warning
    names all of those.

    Args:
        folder: Path or fsspec URL; one that does not exist yet is an empty history.

    Raises:
        ValueError: If ``folder`` is a file or a chain of file systems, or its protocol is unknown.
    """
    fs, root = open_folder(folder)
    fs.invalidate_cache()  # other processes add files
    if not fs.exists(root):
        return History()
    if fs.isfile(root):
        raise ValueError(f"`folder` must be a folder of records, got the file {os.fspath(folder)!r}.")
    names = {path: path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(root, detail=False)}
    paths = sorted(path for path, name in names.items() if name.endswith(".json") and not name.startswith("."))
    records, skipped = [], []
    # Not `cat`: it takes a bracket in the name of the folder for a pattern.
    for path, content in zip(paths, fs.cat_ranges(paths, None, None, on_error="return"), strict=True):
        try:
            if isinstance(content, Exception):
                raise content
            records.append(TransferRecord.from_json(content))
        except Exception as error:  # whatever one file holds, the others are still a history
            skipped.append(f"{names[path]} ({_reason(error)})")
    if skipped:
        warnings.warn(
            f"Left out {len(skipped)} of {len(paths)} files in {os.fspath(folder)}: {'; '.join(skipped)}.", stacklevel=2
        )
    return History(records)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "truncated or not JSON"
    if not isinstance(error, ValueError):
        return f"cannot be read: {type(error).__name__}"
    reason = str(error)
    return reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}..."
