"""The command line, through a pipe and in terminals of several widths."""

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

import pytest

from lightning_leep import cli as command
from lightning_leep.records import AccuracyCurve, History, load_history, save_record
from tests._helpers.simulated_transfers import make_record, make_report

CURVE = AccuracyCurve((1, 2), (0.5, 0.8125))


@pytest.fixture
def folder(tmp_path):
    save_record(make_record(curve=CURVE, target_name="[pets]", source_name="resnet", report=make_report(37)), tmp_path)
    save_record(make_record(trainable="all", target_name="cars"), tmp_path)
    return tmp_path


@pytest.fixture
def wide(tmp_path):
    """Names and numbers that are longer than those of most."""
    names = {"target_name": "TensorDataset of a long name", "source_name": "vit_base_patch16_224.augreg_in21k_ft_in1k"}
    for probe, leep, achieved in ((0.123, -12.345, 0.234), (0.456, -1.5, 0.567)):
        report = make_report(1000, 1300, probe=probe, leep=leep, leave_one_out_leep=leep - 0.111)
        save_record(make_record(achieved, "scratch", report=report, complete=achieved > 0.5, **names), tmp_path)
    return tmp_path


def in_shell(*arguments, **options):
    environment = {**os.environ, "COLUMNS": "", **options.pop("environment", {})}
    return subprocess.run(
        [sys.executable, "-m", "lightning_leep", *map(str, arguments)],
        env=environment,
        check=True,
        **{"capture_output": True, "text": True, **options},
    )


def in_terminal(width: int, *arguments) -> str:
    """What a terminal of so many columns shows."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    in_shell(*arguments, capture_output=False, stdout=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # how Linux says that nothing more will come
        pass
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_table_holds_every_transfer(folder, capsys):
    assert command.main(["history", str(folder)]) == 0
    out = capsys.readouterr().out
    (row,) = (line for line in out.splitlines() if "[pets]" in line)
    cells = "2026-01-02 03:04 [pets] resnet head 37 1850 -2.528 -2.708 0.700 0.812 2 2.0"
    assert " ".join(row.split()) == cells
    assert "cars" in out
    assert "leave-one-out" in out
    assert "ended early" not in out


def test_a_pipe_gets_whole_names_and_all_columns(wide):
    out = in_shell("history", wide).stdout
    assert "TensorDataset of a long name  vit_base_patch16_224.augreg_in21k_ft_in1k  scratch" in out
    assert all(column.title in out for column, _, _ in command.COLUMNS)
    assert "Too narrow" not in out


def test_a_terminal_of_80_columns(wide):
    header, *rows = in_terminal(80, "history", wide).splitlines()
    assert " ".join(header.split()) == "date target source trained classes LEEP probe achieved"
    for row in rows[:2]:
        assert len(row) <= 80
        assert re.match(r"2026-01-02  TensorD\w*… +vit_\w+… +scratch +1000 ", row)
    numbers = {tuple(row.split()[-3:]) for row in rows[:2]}
    assert numbers == {("-12.345", "0.123", "0.234*"), ("-1.500", "0.456", "0.567")}
    assert rows[2].startswith("* ended early")
    assert rows[3] == "Too narrow for: UTC, rows, leave-one-out, epochs, to 90%"


@pytest.mark.parametrize("width", [20, 40, 60, 100, 132])
def test_numbers_are_whole_at_any_width(wide, width):
    text = command.table(load_history(wide), width)
    assert max(map(len, text.splitlines())) <= width
    assert "0.234*" in text
    for number in re.findall(r"-?\d+\.\d+", text.split("*")[0].replace("0.234", "")):
        assert number in ("-12.345", "-12.456", "-1.500", "-1.611", "0.123", "0.456", "0.567", "1.0")


def test_cut_names_in_an_encoding_without_an_ellipsis(wide):
    text = command.table(load_history(wide), 80, "ascii")
    assert text.isascii()
    assert re.search(r"TensorD\w*\? +vit_\w+\? +scratch", text)
    assert max(map(len, text.splitlines())) <= 80


def test_a_run_that_ended_early_is_marked():
    records = [make_record(0.3, complete=False, target_name="hopeless"), make_record(0.6, target_name="fine")]
    text = command.table(History(records))
    (hopeless,) = (line for line in text.splitlines() if "hopeless" in line)
    (fine,) = (line for line in text.splitlines() if "fine" in line)
    assert "0.300*" in hopeless
    assert "*" not in fine
    assert hopeless.index("0.300") == fine.index("0.600")
    assert text.splitlines()[-1].startswith("* ended early")


def test_names_cannot_break_the_table_or_command_the_terminal():
    text = command.table(
        History([make_record(target_name="a\nb\x1b[31m", source_name="\ud800", trainable="\r\t")]), 120
    )
    assert len(text.splitlines()) == 2
    assert r"a\nb\x1b[31m" in text
    assert r"\ud800" in text
    assert r"\r\t" in text


def test_an_encoding_without_the_letters_of_a_name(tmp_path):
    folder = tmp_path / "überall"
    folder.mkdir()
    save_record(make_record(target_name="Blüten 日本"), folder)
    (folder / "é.json").write_text("{")
    run = in_shell("history", folder, environment={"PYTHONIOENCODING": "ascii"})
    assert r"Bl\xfcten \u65e5\u672c" in run.stdout
    assert r"\xe9.json" in run.stderr


def test_a_reader_that_has_seen_enough_ends_it_without_a_word(tmp_path):
    for i in range(3):
        save_record(make_record(target_name=f"{i}{'x' * 100_000}"), tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "lightning_leep", "history", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_files_that_are_left_out_are_named_on_stderr(folder, capsys):
    (folder / "other.json").write_text('{"name": 1}')
    assert command.main(["history", str(folder)]) == 0
    captured = capsys.readouterr()
    assert re.search("Warning: Left out 1 of 3 files.*other.json.*not a record", captured.err)
    assert "other" not in captured.out


def test_strategy_filter(folder, capsys):
    assert command.main(["history", str(folder), "--trainable", "all"]) == 0
    out = capsys.readouterr().out
    assert "cars" in out
    assert "pets" not in out


def test_empty_folder(tmp_path, capsys):
    assert command.main(["history", str(tmp_path)]) == 0
    assert "No transfers" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["nowhere", "nosuchprotocol://bucket/folder", "dir::memory://x"])
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
