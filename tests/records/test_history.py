"""A folder of records: whole files, many writers, damaged files, filters."""

import json
import multiprocessing
import os
import re
import warnings

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lightning_leep.records.history import MAX_BYTES, History, load_history, save_record
from tests._helpers.simulated_transfers import make_record, make_report


@pytest.fixture(params=["local", "memory", "brackets", "pathlike"])
def folder(request, tmp_path):
    if request.param == "memory":
        url = f"memory://{tmp_path.name}/history"
        yield url
        fs = fsspec.filesystem("memory")
        if fs.exists(f"/{tmp_path.name}"):
            fs.rm(f"/{tmp_path.name}", recursive=True)
        return
    path = tmp_path / ("run[1]*" if request.param == "brackets" else "a") / "history"
    yield path if request.param == "pathlike" else str(path)


def file_names(folder) -> list[str]:
    fs, root = fsspec.core.url_to_fs(str(folder))
    return sorted(path.rsplit("/", 1)[-1] for path in fs.ls(root, detail=False))


def test_saved_records_come_back_oldest_first(folder):
    assert len(load_history(folder)) == 0  # it does not exist yet
    records = [make_record(target_name=str(i), created=f"2026-01-0{9 - i}T00:00:00+00:00") for i in range(4)]
    paths = [save_record(record, folder) for record in records]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = load_history(folder)
    assert list(history) == records[::-1]
    assert len(set(paths)) == 4
    assert file_names(folder) == sorted(path.rsplit("/", 1)[-1] for path in paths)  # and no temporary file
    for path, record in zip(paths, records, strict=True):
        with fsspec.open(path, expand=False) as file:
            assert json.loads(file.read())["target_name"] == record.target_name


def test_new_files_are_seen_where_listings_are_cached(monkeypatch):
    listings, ls = {}, MemoryFileSystem.ls  # as object stores do
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda fs, path, **how: listings.setdefault(path, ls(fs, path, **how)))
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", lambda fs, path=None: listings.clear())
    for number in (1, 2):
        save_record(make_record(), "memory://listed")
        assert len(load_history("memory://listed")) == number


def _write(folder: str, number: int, barrier) -> None:
    barrier.wait()
    for i in range(2):
        save_record(make_record(target_name=f"{number}-{i}"), folder)


@pytest.mark.slow
def test_50_processes_that_write_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(50)
    processes = [context.Process(target=_write, args=(str(tmp_path), i, barrier)) for i in range(50)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a reader in the middle of it never sees part of a file
            load_history(tmp_path)
    assert [process.exitcode for process in processes] == [0] * 50
    found = {record.target_name for record in load_history(tmp_path)}
    assert found == {f"{number}-{i}" for number in range(50) for i in range(2)}


def test_one_warning_names_every_file_that_is_left_out(folder):
    kept = make_record()
    save_record(kept, folder)
    whole = kept.to_json()
    newer = {**kept.to_dict(), "schema_version": 99}
    bad = {
        "truncated.json": whole[: len(whole) // 2],
        "empty.json": "",
        "foreign.json": '{"name": "package"}',
        "list.json": "[1, 2]",
        "newer.json": json.dumps(newer),
        "deep.json": "[" * 100_000,
    }
    fs, root = fsspec.core.url_to_fs(str(folder))
    for name, text in {**bad, "notes.txt": "not ours", ".hidden.json": "not ours"}.items():
        fs.pipe_file(f"{root}/{name}", text.encode())
    fs.pipe_file(f"{root}/bytes.json", b"\xff\xfe\x00")
    fs.makedirs(f"{root}/folder.json", exist_ok=True)
    with pytest.warns(UserWarning, match="Left out 8 of 9") as caught:
        history = load_history(folder)
    assert list(history) == [kept]
    assert len(caught) == 1
    message = str(caught[0].message)
    for name in (*bad, "bytes.json", "folder.json"):
        assert name in message
    assert re.search("newer.json.*schema 99", message)
    assert "notes.txt" not in message
    assert "hidden" not in message
    assert caught[0].filename == __file__


@pytest.mark.timeout(60)
def test_what_is_not_a_record_is_passed_over_and_not_waited_for(tmp_path, tmp_path_factory):
    """A pipe, devices, a file that is too large, infinite scores, a name that commands the terminal."""
    save_record(make_record(), tmp_path)
    elsewhere = save_record(make_record(), tmp_path_factory.mktemp("elsewhere"))
    (tmp_path / "link.json").symlink_to(elsewhere)  # which is read
    os.mkfifo(tmp_path / "20260101T000000-0.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "stdin.json").symlink_to("/dev/stdin")
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole, which takes no room
    text = make_record().to_json()
    leep = next(part for part in text.split(",") if '"leep":' in part)
    for number in ("Infinity", "-Infinity", "1e999"):
        (tmp_path / f"{number}.json").write_text(text.replace(leep, f"{leep.split(':')[0]}: {number}", 1))
    (tmp_path / "\x1b[31mred\n.json").write_text("{")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(load_history(tmp_path)) == 2
    (message,) = (str(warning.message) for warning in caught)
    assert message.startswith("Left out 8 of 10 files")
    assert "20260101T000000-0.json (not a regular file)" in message
    assert "large.json (larger than 16 MiB)" in message
    for name in ("zero", "stdin", "Infinity", "-Infinity", "1e999", r"\x1b[31mred\n"):
        assert f"{name}.json (" in message
    assert message.isprintable()


def test_filters():
    records = [
        make_record(trainable="head", target_name="a", source_name="m", created="2026-01-01T00:00:00"),
        make_record(trainable="all", target_name="a", source_name="n", created="2026-01-02T00:00:00"),
        make_record(trainable="all", report=make_report(7), created="2026-01-03T00:00:00"),
    ]
    history = History(records)
    assert list(history.filter()) == records
    assert list(history.filter(trainable="all")) == records[1:]
    assert list(history.filter(target_name="a", source_name="n")) == [records[1]]
    assert history[-1] is records[2]


def test_times_of_all_zones_are_in_order_and_equal_times_in_one_of_their_own():
    times = ["2026-01-02T11:00:00+05:00", "2026-01-02T08:00:00Z", "2026-01-02T08:30:00"]  # 6:00, 8:00, 8:30 UTC
    records = [make_record(created=time) for time in times]
    assert [record.created[11:16] for record in History(records[::-1])] == ["06:00", "08:00", "08:30"]
    records = [make_record(achieved=i / 10) for i in (3, 0, 4, 1, 2)]
    assert list(History(records)) == list(History(records[::-1]))


def test_a_reason_that_quotes_a_whole_file_is_cut(tmp_path):
    values = make_record().to_dict() | {"target_name": ["x" * 100_000]}
    (tmp_path / "long.json").write_text(json.dumps(values))
    with pytest.warns(UserWarning, match="long.json .*`target_name` must be a string") as caught:
        assert len(load_history(tmp_path)) == 0
    assert len(str(caught[0].message)) < 1000


def test_what_is_not_records_or_no_folder_is_named(tmp_path):
    for history in ("transfer_history", 3):
        with pytest.raises(TypeError, match="`history` must be records"):
            History(history)
    with pytest.raises(ValueError, match="must be a folder"):
        load_history(save_record(make_record(), tmp_path))
