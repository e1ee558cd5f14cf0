"""Command line: ``python -m lightning_leep history PATH`` shows earlier transfers as a table."""

import argparse
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from lightning_leep.records.folder import open_folder
from lightning_leep.records.history import History, load_history
from lightning_leep.utils.table import Column, lay_out, printable

#: Behind the accuracy of a run that was ended because it seemed hopeless.
ENDED_EARLY = "*"
LEGEND = f"{ENDED_EARLY} ended early: it could have achieved more, and no forecast rests on it"


def _number(digits: int) -> Callable[[Any], str]:
    return lambda value: "" if value is None else f"{value:.{digits}f}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


COLUMNS: tuple[tuple[Column, str, Callable[[Any], str]], ...] = (
    (Column("date", 7), "created", lambda value: value[:10]),
    (Column("UTC", 9), "created", lambda value: value[11:16]),
    (Column("target", 1, is_name=True), "target_name", _text),
    (Column("source", 2, is_name=True), "source_name", _text),
    (Column("trained", 5, is_name=True), "trainable", _text),
    (Column("classes", 6), "num_target_classes", _text),
    (Column("rows", 8), "num_samples", _text),
    (Column("LEEP", 4), "leep", _number(3)),
    (Column("leave-one-out", 12), "leave_one_out_leep", _number(3)),
    (Column("probe", 3), "linear_probe_accuracy", _number(3)),
    (Column("achieved", 0), "achieved_accuracy", _number(3)),
    (Column("epochs", 10), "epochs", _number(0)),
    (Column("to 90%", 11), "epochs_to_90_percent", _number(1)),
)


def table_rows(history: History, encoding: str = "utf-8") -> list[list[str]]:
    """The cells of the table, one list a transfer, as wide as ``COLUMNS``."""
    rows = []
    for values in history.to_dicts():
        marks = {"achieved_accuracy": " " if values["complete"] else ENDED_EARLY}
        row = [form(values.get(name)) + marks.get(name, "") for _, name, form in COLUMNS]
        rows.append([printable(cell, encoding) for cell in row])
    return rows


def table(history: History, width: int | None = None, encoding: str = "utf-8") -> str:
    """The transfers as a table of at most ``width`` places, with a line on what it lacks and on what its marks mean."""
    text, missing = lay_out([column for column, _, _ in COLUMNS], table_rows(history, encoding), width)
    below = []
    if not all(record.complete for record in history):
        below.append(LEGEND)
    if missing:
        below.append(f"Too narrow for: {', '.join(missing)}")
    text = text.encode(encoding, "replace").decode(encoding)  # the mark of a cut name, one place in any encoding
    return "\n".join([text, *(textwrap.fill(line, width or len(line)) for line in below)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 if the history cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m lightning_leep", description="Histories of transfers.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("history", help="show a folder of transfers as a table (rich fits it to a terminal)")
    command.add_argument("path", help="folder of records, or its fsspec URL")
    command.add_argument("--trainable", help="only transfers that trained this part: head, all, ...")
    options = parser.parse_args(arguments)
    try:
        fs, root = open_folder(options.path)
        if not fs.exists(root):
            _say(f"There is no folder {options.path}.")
            return 2
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = load_history(options.path).filter(trainable=options.trainable)
    except (ImportError, ValueError, OSError) as error:  # a protocol without its driver, a file, no permission
        _say(f"Cannot read {options.path}: {error}")
        return 2
    for warning in caught:
        _say(f"Warning: {warning.message}")
    encoding = sys.stdout.encoding or "utf-8"
    # A pipe has no width of its own; cut names would be of no use to whatever reads it.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    try:
        print(
            table(history, width, encoding) if len(history) else printable(f"No transfers in {options.path}.", encoding)
        )
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough; nothing is left to say when Python flushes again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _say(message: str) -> None:
    print(printable(message, sys.stderr.encoding or "utf-8"), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
