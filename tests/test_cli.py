"""The command line, through a pipe and in terminals of several widths."""

import re
import subprocess
import sys

import pytest

from lightning_leep import cli
from lightning_leep.records import AccuracyCurve, save_record
from tests._helpers.simulated_transfers import make_record, make_report
from tests._helpers.terminal import in_shell, in_terminal

CURVE = AccuracyCurve((1, 2), (0.5, 0.8125))
TITLES = [column.title for column in cli.COLUMNS]
ODD_NAMES = {"target_name": "a\nb\t\x1b[31m\ud800", "source_name": "[red]x :smile:", "trainable": "日本語" * 20}


@pytest.fixture
def folder(tmp_path):
    save_record(make_record(curve=CURVE, target_name="[pets]", source_name="resnet", report=make_report(37)), tmp_path)
    save_record(make_record(trainable="all", target_name="cars"), tmp_path)
    return tmp_path


@pytest.fixture
def wide(tmp_path):
    """Names and numbers that are longer than most."""
    names = {"target_name": "TensorDataset of a long name", "source_name": "vit_base_patch16_224.augreg_in21k_ft_in1k"}
    for probe, leep, achieved in ((0.123, -12.345, 0.234), (0.456, -1.5, 0.567)):
        report = make_report(1000, 1300, probe=probe, leep=leep, leave_one_out_leep=leep - 0.111)
        save_record(make_record(achieved, "scratch", report=report, complete=achieved > 0.5, **names), tmp_path)
    return tmp_path


def test_a_pipe_gets_every_transfer_with_whole_names(folder):
    header, *rows = in_shell("history", folder).stdout.splitlines()
    assert header.split("\t") == TITLES
    cells = ["2026-01-02", "[pets]", "resnet", "head", "37", "1850", "-2.528", "-2.708", "0.700", "0.812", "2", "2.0"]
    assert [*cells, "True"] in [row.split("\t") for row in rows]
    assert len(rows) == 2


def test_a_terminal_gets_whole_numbers_and_cut_names(wide):
    header, *rows, legend = in_terminal(80, "history", wide)
    assert header.split() == ["date", "target", "source", "trained", "classes", "LEEP", "probe", "achieved"]
    assert len(rows) == 2
    for row in rows:
        assert len(row) <= 80
        assert re.match(r"2026-01-02  Tensor.*… +vit_.*… +scratch +1000 ", row)
    assert {tuple(row.split()[-3:]) for row in rows} == {("-12.345", "0.123", "*0.234"), ("-1.500", "0.456", "0.567")}
    ended, whole = sorted(rows, key=lambda row: "*" not in row)
    assert ended.index("0.234") == whole.index("0.567")
    assert legend.startswith("* ended early")


def test_a_wide_terminal_gets_all_columns(folder):
    lines = in_terminal(160, "history", folder)
    assert all(title in lines[0] for title in TITLES[:-1])
    assert len(lines) == 3
    assert "-2.708" in " ".join(lines)


@pytest.mark.slow
def test_names_cannot_break_the_table_or_command_the_terminal(tmp_path):
    save_record(make_record(**ODD_NAMES), tmp_path)
    _, row = in_shell("history", tmp_path).stdout.splitlines()
    assert row.split("\t")[1:4] == [r"a\nb\t\x1b[31m\ud800", "[red]x :smile:", "日本語" * 20]
    _, row = in_terminal(120, "history", tmp_path)
    assert r"a\nb\t\x1b[31m\ud800" in row
    assert "[red]x :smile:" in row
    assert sum(2 if c > "\u2fff" else 1 for c in row) <= 120


@pytest.mark.slow
def test_an_encoding_without_the_letters_of_a_name(tmp_path):
    folder = tmp_path / "überall"
    folder.mkdir()
    save_record(make_record(target_name="Blüten 日本"), folder)
    (folder / "é.json").write_text("{")
    run = in_shell("history", folder, environment={"PYTHONIOENCODING": "ascii"})
    assert r"Bl\xfcten \u65e5\u672c" in run.stdout
    assert r"\xe9.json" in run.stderr


def test_without_rich_a_terminal_gets_the_lines_of_a_pipe(folder, capfd):
    start = "import sys; sys.modules['rich'] = None; from lightning_leep.cli import main; sys.exit(main(sys.argv[1:]))"
    shown = in_terminal(80, "history", folder, program=["-c", start])
    assert "\t".join(TITLES).expandtabs() in [line.expandtabs() for line in shown]
    assert "pip install lightning-leep[tables]" in capfd.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
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
    assert cli.main(["history", str(folder)]) == 0
    captured = capsys.readouterr()
    assert re.search("Warning: Left out 1 of 3 files.*other.json.*not a record", captured.err)
    assert "other" not in captured.out


def test_filter_by_what_was_trained_which_may_leave_nothing(folder, capsys):
    assert cli.main(["history", str(folder), "--trainable", "all"]) == 0
    out = capsys.readouterr().out
    assert "cars" in out
    assert "pets" not in out
    assert cli.main(["history", str(folder), "--trainable", "scratch"]) == 0
    assert "No transfers" in capsys.readouterr().err


def test_why_there_are_no_transfers(folder, tmp_path, capsys):
    assert cli.main(["history", str(folder), "--trainable", "haed"]) == 0
    assert "No transfers that trained 'haed'" in capsys.readouterr().err
    save_record(make_record(), tmp_path / "runs" / "transfer_history")
    for command, status in (("history", 0), ("report", 2)):
        assert cli.main([command, str(tmp_path / "runs")]) == status
        assert f"Try {tmp_path}/runs/transfer_history." in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["-o", "nowhere/page.html"], ["--ranking", "nowhere/ranking.json"]])
def test_a_report_names_the_file_that_fails(arguments, folder, capsys):
    assert cli.main(["report", str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert f"{arguments[1]}: No such file or directory" in error
    assert "Errno" not in error


@pytest.mark.parametrize("path", ["nowhere", "nosuchprotocol://bucket/folder", "dir::memory://x"])
def test_what_cannot_be_read_is_named_on_stderr(tmp_path, path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["history", path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert path in captured.err


def test_interruption_before_the_work_begins_is_one_line(monkeypatch, capsys):
    class Stops:
        def find_spec(self, *_):
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "lightning_leep.ranking.command", raising=False)
    monkeypatch.delattr("lightning_leep.ranking.command", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Stops(), *sys.meta_path])
    assert cli.main(["rank", "zoo.yaml"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("lightning-leep 0.")
