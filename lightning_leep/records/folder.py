"""The folder of a history: its file system, and writing files that exist as a whole or not at all."""

import os
from contextlib import suppress
from typing import TypeAlias

import fsspec

Folder: TypeAlias = str | os.PathLike[str]

# Object stores, where one put is atomic and a rename would be a copy and a deletion.
ATOMIC_PUT_PROTOCOLS = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "hf"}


def open_folder(folder: Folder) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a folder, a path or fsspec URL, and the path there.

    Two colons are part of a path unless a protocol stands next to them. ``ValueError`` if the protocol is unknown, or
    the URL chains several file systems: fsspec would ignore a part of it, or read another file than it wrote.
    """
    path = os.fspath(folder)
    if "::" not in path:
        return fsspec.core.url_to_fs(path)
    if {part.split("://")[0] for part in path.split("::")}.isdisjoint(fsspec.available_protocols()):
        local = fsspec.filesystem("file")
        return local, local._strip_protocol(path)
    raise ValueError(f"`folder` must be a path or the URL of one file system, got a chain of several: {path!r}.")


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Return whether it is the file system of this machine."""
    return "file" in protocols(fs)


def protocols(fs: fsspec.AbstractFileSystem) -> set[str]:
    """Return the names of a file system."""
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def write_whole(fs: fsspec.AbstractFileSystem, root: str, name: str, content: bytes) -> str:
    """Write a new file into a folder so that no reader ever sees a part of it, and return its path.

    On a local file system this holds even if the process is killed or the machine stops: the content is on the disk
    before the name exists. A killed writer may leave a hidden temporary file, which no reader reads.
    """
    root = root.rstrip("/")
    path, temporary = f"{root}/{name}", f"{root}/.{name}.tmp"
    if is_local(fs):
        _write_local(temporary, path, content)
    elif not ATOMIC_PUT_PROTOCOLS.isdisjoint(protocols(fs)):
        fs.pipe_file(path, content)
    else:
        try:
            fs.pipe_file(temporary, content)
            fs.mv(temporary, path)
        except BaseException:
            if fs.exists(temporary):
                fs.rm_file(temporary)
            raise
    return path


def _write_local(temporary: str, path: str, content: bytes) -> None:
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with suppress(OSError):  # not every file system can; the content is safe, only its name may be delayed
        descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
