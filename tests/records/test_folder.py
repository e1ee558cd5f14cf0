"""Files that are there whole or not at all, whatever ends the writer; and where a path leads."""

import multiprocessing
import os
import resource
import signal
import warnings
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lightning_leep.records import load_history, save_record
from tests._helpers.simulated_transfers import make_record

FORK = multiprocessing.get_context("fork")


def run_in_child(function, *arguments) -> int:
    """Exit code of a forked process: minus the signal that ended it, if one did."""
    process = FORK.Process(target=function, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def load_without_warning(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_history(folder)


def _save_with_room_for_500_bytes(folder: Path, action) -> None:
    signal.signal(signal.SIGXFSZ, action)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    try:
        save_record(make_record(target_name="cut"), folder)
    except OSError as error:
        os._exit(error.errno)


def test_a_write_for_which_there_is_no_room_leaves_nothing(tmp_path):
    save_record(make_record(target_name="whole"), tmp_path)
    before = set(tmp_path.iterdir())
    assert run_in_child(_save_with_room_for_500_bytes, tmp_path, signal.SIG_IGN) == 27  # EFBIG
    assert set(tmp_path.iterdir()) == before


def test_a_writer_killed_in_the_middle_of_a_file_leaves_no_record(tmp_path):
    save_record(make_record(target_name="whole"), tmp_path)
    assert run_in_child(_save_with_room_for_500_bytes, tmp_path, signal.SIG_DFL) == -signal.SIGXFSZ
    (left,) = tmp_path.glob(".*")
    assert left.stat().st_size == 500  # it was in the middle
    assert [record.target_name for record in load_without_warning(tmp_path)] == ["whole"]


def _save_and_be_killed_at(name: str, folder: Path) -> None:
    setattr(os, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    save_record(make_record(target_name="cut"), folder)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_writer_killed_before_the_file_has_its_name_leaves_no_record(call, tmp_path):
    assert run_in_child(_save_and_be_killed_at, call, tmp_path) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    assert len(load_without_warning(tmp_path)) == 0


def test_the_content_is_on_the_disk_before_the_name_is_there(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append(os.fstat(file).st_size), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("name"), replace(*paths)))
    path = save_record(make_record(), tmp_path)
    assert calls[:2] == [os.path.getsize(path), "name"]
    assert len(calls) == 3  # and then the folder


class Growing(MemoryFileSystem):
    """A file system whose files grow while they are written, as over SFTP."""

    protocol = "growing"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("growing://"))


def test_where_files_grow_a_record_has_its_name_once_it_is_whole(monkeypatch, tmp_path):
    def lost(fs, *paths, **options):
        raise OSError("connection lost")

    fsspec.register_implementation("growing", Growing, clobber=True)
    folder, piped, pipe = f"growing://{tmp_path.name}", [], MemoryFileSystem.pipe_file
    monkeypatch.setattr(Growing, "pipe_file", lambda fs, path, *rest, **o: piped.append(path) or pipe(fs, path, *rest))
    path = save_record(make_record(), folder)
    assert Path(piped[0]).name == f".{Path(path).name}.tmp"
    monkeypatch.setattr(Growing, "mv", lost)
    with pytest.raises(OSError, match="connection lost"):
        save_record(make_record(), folder)
    assert len(load_without_warning(folder)) == len(Growing().ls(f"/{tmp_path.name}")) == 1


@pytest.mark.parametrize("name", ["a::b", "::", "runs::2026::x", "a:b"])
@pytest.mark.parametrize("relative", [False, True])
def test_colons_are_part_of_a_local_path(name, relative, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save_record(make_record(target_name="here"), name if relative else f"{tmp_path}/{name}")
    (file,) = (tmp_path / name).iterdir()
    assert Path(path) == file
    assert [record.target_name for record in load_history(tmp_path / name)] == ["here"]
    assert [folder.name for folder in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "chain",
    [
        "dir::file://{0}",
        "dir://x::file://{0}",
        "file://{0}/a::b",
        "memory://a::b",
        "{0}/a::local",
        "simplecache::memory://x",
        "zip://x::{0}/x.zip",
    ],
)
def test_a_chain_is_refused(chain, tmp_path):
    chain = chain.format(tmp_path)
    for use in (load_history, lambda folder: save_record(make_record(), folder)):
        with pytest.raises(ValueError, match="chain of several"):
            use(chain)
    assert list(tmp_path.iterdir()) == []
