"""The command line."""

import subprocess
import sys

import pytest

from lightning_leep import __main__ as command
from lightning_leep.forecast.curve import AccuracyCurve
from lightning_leep.forecast.history import save_record
from tests.forecast.simulate import make_record, make_report


@pytest.fixture
def folder(tmp_path):
    curve = AccuracyCurve((1, 2), (0.5, 0.8125))
    save_record(make_record(curve=curve, dataset="[pets]", model="resnet", report=make_report(37)), tmp_path)
    save_record(make_record(strategy="all", dataset="cars"), tmp_path)
    return tmp_path


@pytest.mark.parametrize("rich", [True, False])
def test_table_holds_every_transfer(folder, rich, monkeypatch, capsys):
    if rich:
        pytest.importorskip("rich")
    monkeypatch.setattr(command, "_RICH_AVAILABLE", rich)
    assert command.main(["history", str(folder)]) == 0
    out = capsys.readouterr().out
    (row,) = (line for line in out.splitlines() if "[pets]" in line)
    for cell in ("2026-01-02 03:04", "resnet", "head", "37", "1850", "0.812", "0.700", "2.0"):
        assert cell in row
    assert "cars" in out
    assert "leave-one-out" in out


def test_plain_columns_are_aligned(folder, monkeypatch, capsys):
    monkeypatch.setattr(command, "_RICH_AVAILABLE", False)
    command.main(["history", str(folder)])
    header, *rows = capsys.readouterr().out.splitlines()
    start = header.index("model")
    assert len(rows) == 2
    assert sorted(row[start - 2 : start + 6] for row in rows) == ["         "[:8], "  resnet"]


def test_strategy_filter(folder, capsys):
    assert command.main(["history", str(folder), "--strategy", "all"]) == 0
    out = capsys.readouterr().out
    assert "cars" in out
    assert "pets" not in out


def test_empty_folder(tmp_path, capsys):
    assert command.main(["history", str(tmp_path)]) == 0
    assert "No transfers" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["nowhere", "nosuchprotocol://bucket/folder"])
def test_what_cannot_be_read_is_named_on_stderr(tmp_path, path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["history", path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert path in captured.err


def test_a_file_instead_of_a_folder(folder, capsys):
    (file, *_) = folder.iterdir()
    assert command.main(["history", str(file)]) == 2
    assert "must be a folder" in capsys.readouterr().err


def test_from_the_shell(folder):
    run = subprocess.run(
        [sys.executable, "-m", "lightning_leep", "history", str(folder)], capture_output=True, text=True, check=True
    )
    assert "[pets]" in run.stdout
