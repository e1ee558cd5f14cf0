"""Records of earlier transfers in a folder, one JSON file per run, so that no run waits for or overwrites another."""

import json
import os
import stat
import uuid
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from lightning_leep.records.folder import Folder, is_local, open_folder, write_whole
from lightning_leep.records.transfer import TransferRecord
from lightning_leep.utils.checks import printable

#: Most characters of the reason why a file is left out, which may quote the file.
MAX_REASON = 200
#: A record has up to some ten thousand bytes.
MAX_BYTES = 2**24


def check_records(history: Any) -> None:
    """Raise ``TypeError`` if ``history`` is neither None nor records; a folder must be loaded first."""
    if history is not None and (isinstance(history, str | os.PathLike) or not isinstance(history, Iterable)):
        raise TypeError(f"`history` must be records, as load_history(folder) returns them, got {history!r}.")


class History(tuple[TransferRecord, ...]):
    """Transfers, sorted with the oldest first."""

    def __new__(cls, records: Iterable[TransferRecord] = ()) -> "History":
        """Sort the records by their time; their text breaks ties, so that no order of files matters."""
        check_records(records)
        ordered = sorted(records, key=lambda record: record.created)
        if len({record.created for record in ordered}) < len(ordered):
            ordered.sort(key=lambda record: (record.created, record.to_json()))
        return super().__new__(cls, ordered)

    def __repr__(self) -> str:
        return f"History of {len(self)} transfers"

    def filter(
        self, *, trainable: str | None = None, target_name: str | None = None, source_name: str | None = None
    ) -> "History":
        """Return the transfers that match every argument that is not None."""
        return History(
            record
            for record in self
            if trainable in (None, record.trainable)
            and target_name in (None, record.target_name)
            and source_name in (None, record.source_name)
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per transfer, for ``pandas.DataFrame(history.to_dicts())``."""
        return [record.to_flat_dict() for record in self]


def save_record(record: TransferRecord, folder: Folder) -> str:
    """Write a record into a new file in a folder; return its path, with the protocol if it is not local.

    The file appears as a whole or not at all, and any number of processes may write into one folder. ``folder`` is a
    path or fsspec URL; it is created if it does not exist. ``ValueError`` if it is a chain of file systems or its
    protocol is unknown.
    """
    fs, root = open_folder(folder)
    fs.makedirs(root, exist_ok=True)
    stamp = datetime.fromisoformat(record.created).strftime("%Y%m%dT%H%M%S")
    path = write_whole(fs, root, f"{stamp}-{uuid.uuid4().hex}.json", record.to_json().encode())
    return path if is_local(fs) else fs.unstrip_protocol(path)


def load_history(folder: Folder) -> History:
    """Read all records in a folder: the files ``*.json`` directly in it.

    A file that is truncated, not a record, larger than 16 MiB, or written by a newer version is left out, and so is
    what is not a regular file (a pipe, a link to a device). One warning names all of them. ``folder`` is a path or
    fsspec URL; one that does not exist yet is an empty history. ``ValueError`` if it is a file or a chain of file
    systems, or its protocol is unknown.
    """
    fs, root = open_folder(folder)
    fs.invalidate_cache()  # another process may have added files
    if not fs.exists(root):
        return History()
    if fs.isfile(root):
        raise ValueError(f"`folder` must be a folder of records, not a file, got {os.fspath(folder)!r}.")
    files = {info["name"].rstrip("/"): info for info in fs.ls(root, detail=True)}
    names = {path: path.rsplit("/", 1)[-1] for path in sorted(files)}
    names = {path: name for path, name in names.items() if name.endswith(".json") and not name.startswith(".")}
    obstacles = {path: _obstacle(fs, path, files[path]) for path in names}
    paths = [path for path, obstacle in obstacles.items() if not obstacle]
    records, skipped = [], [f"{names[path]} ({obstacle})" for path, obstacle in obstacles.items() if obstacle]
    # Not `cat`, which reads a bracket in the folder's name as a pattern.
    for path, content in zip(paths, fs.cat_ranges(paths, None, None, on_error="return"), strict=True):
        try:
            if isinstance(content, Exception):
                raise content
            records.append(TransferRecord.from_json(content))
        except Exception as error:  # one bad file must not hide the others
            skipped.append(f"{names[path]} ({_reason(error)})")
    if skipped:
        message = f"Left out {len(skipped)} of {len(names)} files in {os.fspath(folder)}: {'; '.join(sorted(skipped))}."
        warnings.warn(printable(message), stacklevel=2)
    return History(records)


def _obstacle(fs: Any, path: str, info: Mapping[str, Any]) -> str:
    """Return why a file must not be opened: reading a pipe would wait, a device may never end."""
    size, is_file = info.get("size") or 0, info.get("type") == "file"
    if is_local(fs):
        with suppress(OSError):  # a link to nothing fails when it is read
            status = os.stat(path)  # of what a link leads to
            size, is_file = status.st_size, stat.S_ISREG(status.st_mode)
    if not is_file:
        return "not a regular file"
    return f"larger than {MAX_BYTES // 2**20} MiB" if size > MAX_BYTES else ""


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "truncated or not JSON"
    if not isinstance(error, ValueError):
        return f"cannot be read: {type(error).__name__}"
    reason = str(error)
    return reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}..."
