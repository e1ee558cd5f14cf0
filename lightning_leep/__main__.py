"""Command line: ``python -m lightning_leep history PATH`` shows earlier transfers as a table."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import fsspec
from lightning_utilities.core.imports import RequirementCache

from lightning_leep.forecast.history import History, load_history

_RICH_AVAILABLE = RequirementCache("rich>=13")


def _number(digits: int) -> Callable[[Any], str]:
    return lambda value: "" if value is None else f"{value:.{digits}f}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("created (UTC)", "created", lambda value: value[:16].replace("T", " ")),
    ("data", "dataset", _text),
    ("model", "model", _text),
    ("trained", "strategy", _text),
    ("classes", "num_target_classes", _text),
    ("rows", "num_samples", _text),
    ("LEEP", "leep", _number(3)),
    ("leave-one-out", "leave_one_out_leep", _number(3)),
    ("probe", "linear_probe_accuracy", _number(3)),
    ("achieved", "achieved_accuracy", _number(3)),
    ("epochs", "epochs", _number(0)),
    ("to 90%", "epochs_to_90_percent", _number(1)),
)


def table_rows(history: History) -> list[list[str]]:
    """The cells of the table, one list a transfer, as wide as ``COLUMNS``."""
    return [[form(values.get(name)) for _, name, form in COLUMNS] for values in history.to_dicts()]


def plain_table(history: History) -> str:
    """The table with columns aligned by spaces."""
    rows = [[title for title, _, _ in COLUMNS], *table_rows(history)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def print_table(history: History) -> None:
    """Print the table: with lines and colours where rich is installed, plain otherwise."""
    if not _RICH_AVAILABLE:
        print(plain_table(history))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=repr(history))
    for title, _, _ in COLUMNS:
        table.add_column(title, no_wrap=title.startswith("created"))
    for row in table_rows(history):
        table.add_row(*map(Text, row))  # a name in brackets is no markup
    # A pipe has no width of its own; cut cells would be of no use to whatever reads it.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 if the history cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m lightning_leep", description="Histories of transfers.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("history", help="show the transfers recorded in a folder as a table")
    command.add_argument("path", help="folder of records, or its fsspec URL")
    command.add_argument("--strategy", help="only transfers of this strategy, such as head or all")
    options = parser.parse_args(arguments)
    try:
        fs, root = fsspec.core.url_to_fs(options.path)
        if not fs.exists(root):
            print(f"There is no folder {options.path}.", file=sys.stderr)
            return 2
        history = load_history(options.path).filter(strategy=options.strategy)
    except (ImportError, ValueError, OSError) as error:  # a protocol without its driver, a file, no permission
        print(f"Cannot read {options.path}: {error}", file=sys.stderr)
        return 2
    print_table(history) if len(history) else print(f"No transfers in {options.path}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
