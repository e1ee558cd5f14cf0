"""The folder of a history: its file system, and writing files that exist as a whole or not at all."""

import os
from typing import TypeAlias

import fsspec

Folder: TypeAlias = str | os.PathLike[str]

# Object stores, where one put is atomic and a rename would be a copy and a deletion.
ATOMIC_PUT_PROTOCOLS = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "hf"}


def open_folder(folder: Folder) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a folder, a path or fsspec URL, and the path there.

    ``ValueError`` if the protocol is unknown, or the URL chains several file systems with two colons: fsspec would
    ignore a part of it, or read another file than it wrote.
    """
    path = os.fspath(folder)
    if "::" in path:
        raise ValueError(f"`folder` must be a path or the URL of one file system, got a chain of several: {path!r}.")
    return fsspec.core.url_to_fs(path)


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Return whether it is the file system of this machine."""
    return "file" in _protocols(fs)


def write_whole(fs: fsspec.AbstractFileSystem, root: str, name: str, content: bytes) -> str:
    """Write a new file into a folder so that no reader ever sees a part of it, and return its path.

    A writer that is killed may leave a hidden temporary file, which no reader reads.
    """
    root = root.rstrip("/")
    path, temporary = f"{root}/{name}", f"{root}/.{name}.tmp"
    if not ATOMIC_PUT_PROTOCOLS.isdisjoint(_protocols(fs)):
        fs.pipe_file(path, content)
        return path
    try:
        fs.pipe_file(temporary, content)
        # The oldest fsspec that is admitted moves a local file by a copy.
        (os.replace if is_local(fs) else fs.mv)(temporary, path)
    except BaseException:
        if fs.exists(temporary):
            fs.rm_file(temporary)
        raise
    return path


def _protocols(fs: fsspec.AbstractFileSystem) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
