"""Command line: transfers as a table (``history``) or as a page (``report``); sources before training (``rank``)."""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lightning_leep import __version__
from lightning_leep.records.folder import open_folder
from lightning_leep.records.history import History, load_history
from lightning_leep.tensorboard.plugin.command import add_report, no_transfers, write_report
from lightning_leep.utils.checks import printable


class Column(NamedTuple):
    """A column of the table."""

    title: str
    field: str  #: its name in ``History.to_dicts()``
    format: str = "{}"
    is_name: bool = False  #: cut in a narrow terminal; numbers stay whole
    is_minor: bool = False  #: left out of a terminal narrower than ``WIDE``


COLUMNS = (
    Column("date", "created", "{:.10}"),
    Column("target", "target_name", is_name=True),
    Column("source", "source_name", is_name=True),
    Column("trained", "trainable", is_name=True),
    Column("classes", "num_target_classes"),
    Column("rows", "num_samples", is_minor=True),
    Column("LEEP", "leep", "{:.3f}"),
    Column("leave-one-out", "leave_one_out_leep", "{:.3f}", is_minor=True),
    Column("probe", "linear_probe_accuracy", "{:.3f}"),
    Column("achieved", "achieved_accuracy", "{:.3f}"),
    Column("epochs", "epochs", "{:.0f}", is_minor=True),
    Column("to 90%", "epochs_to_90_percent", "{:.1f}", is_minor=True),
    Column("complete", "complete", is_minor=True),
)
#: Width from which on a terminal has room for all columns, with 15 characters for each name.
WIDE = 140
#: What shells report of a program that Ctrl-C ended.
INTERRUPTED = 130
LEGEND = "* ended early: it could have achieved more, and no forecast uses it"


def cells(values: Mapping[str, Any], columns: Sequence[Column]) -> list[str]:
    """Return one row of the table; a missing field is empty."""
    known = [(column, values.get(column.field)) for column in columns]
    return ["" if value is None else printable(column.format.format(value)) for column, value in known]


def lines(history: History) -> Iterator[str]:
    """Yield lines for another program: all columns, separated by tabs."""
    yield "\t".join(column.title for column in COLUMNS)
    for values in history.to_dicts():
        yield "\t".join(cells(values, COLUMNS))


def print_table(history: History) -> None:
    """Print a table that fits the terminal.

    Raises:
        ImportError: If rich is not installed.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    # A mark replaces the last column.
    columns = [column for column in COLUMNS[:-1] if console.width >= WIDE or not column.is_minor]
    achieved = [column.title for column in columns].index("achieved")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="none")
    for column in columns:
        # rich narrows the columns that may wrap, the widest first; the cells themselves are cut instead.
        is_text = column.is_name or column.title == "date"
        table.add_column(column.title, justify="left" if is_text else "right", no_wrap=not column.is_name)
    for values in history.to_dicts():
        row = cells(values, columns)
        row[achieved] = row[achieved] if values["complete"] else f"*{row[achieved]}"
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    console.print(table)
    if not all(record.complete for record in history):
        console.print(LEGEND)


def show_history(path: str, trainable: str | None) -> int:
    """Print the transfers in a folder and return the exit status: 0, or 2 if they cannot be read."""
    try:
        fs, root = open_folder(path)
        if not fs.exists(root):
            return _fail(f"There is no folder {path}.")
        history = load_history(path).filter(trainable=trainable)
        if not len(history):
            _say(no_transfers(fs, root, path, "" if trainable is None else f" that trained {trainable!r}"))
            return 0
    except (ImportError, ValueError, OSError) as error:  # a protocol without its driver, a file, no permission
        return _fail(f"Cannot read {path}: {_said(error)}")
    if sys.stdout.isatty():
        try:
            print_table(history)
            return 0
        except ImportError:
            _say("For a table that fits the terminal: `pip install lightning-leep[tables]`.")
    for line in lines(history):
        print(line)
    return 0


def show_report(options: argparse.Namespace) -> int:
    """Write the page of a folder of transfers and return the exit status: 0, or 2 if that cannot be done."""
    try:
        _say(write_report(options))
    except (ImportError, ValueError, OSError) as error:
        return _fail(f"Cannot write the report: {_said(error)}")
    return 0


def run_sources(options: argparse.Namespace) -> int:
    """Rank sources, or score one, and return the exit status: 1 if no source could be scored, 2 for bad input."""
    from lightning_leep.ranking import command  # imports torch, for which a history must not wait
    from lightning_leep.ranking.passes import SourceError

    if (folder := os.getcwd()) not in sys.path:  # for dotted paths; behind all that is installed
        sys.path.append(folder)
    try:
        return command.rank(options) if options.command == "rank" else command.score(options)
    except (RuntimeError, SourceError) as error:
        _say(str(error))
        return command.NONE_RANKED
    except (ImportError, TypeError, ValueError, OSError) as error:
        return _fail(_with_flag(_said(error), options))


def _said(error: Exception) -> str:
    """What an error says; of a file, its name and the reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def _with_flag(message: str, options: argparse.Namespace) -> str:
    """A message that starts with the name of an argument, with the flag that was typed in its place."""
    name = message[1:].partition("`")[0] if message.startswith("`") else ""
    if getattr(options, name, None) is None or name in ("zoo", "source"):
        return message
    return f"--{name.replace('_', '-')}{message[len(name) + 2 :]}"


def add_sources(commands: Any) -> None:
    """Add ``rank`` and ``score`` to the subparsers of ``argparse``."""
    rank = commands.add_parser(
        "rank",
        usage="%(prog)s ZOO [--data DATA] [options]",  # `--trainable` takes all words that follow it
        help="rank pre-trained models for labelled data",
        epilog="Exit status: 0 all sources are ranked, 3 some failed or were left out, 1 none is ranked, 2 bad input, "
        "130 interrupted.",
    )
    rank.add_argument("zoo", help="YAML or JSON file with `sources`, and `data` if it names them")
    rank.add_argument("--by", metavar="COLUMN", help="order by this column, such as log_me, instead of the forecast")
    rank.add_argument("--history", metavar="FOLDER", help="folder of earlier transfers")
    rank.add_argument("--target", metavar="NAME", help="name of these data in the history")
    rank.add_argument("--out", metavar="FILE", help="write the ranking as JSON as well")
    rank.add_argument("--folder", metavar="FOLDER", help="keep each report there, and go on after an interruption")
    rank.add_argument("--time-budget", metavar="SECONDS", type=float, help="score the cheapest first, and stop in time")
    score = commands.add_parser(
        "score", usage="%(prog)s SOURCE [--data DATA] [options]", help="score one pre-trained model on labelled data"
    )
    score.add_argument("source", help="timm:NAME, transformers:NAME, a dotted path, or a zoo file with one source")
    for command in (rank, score):
        command.add_argument("--data", help="imagefolder:PATH, or a file with `class_path` and `init_args`")
        command.add_argument(
            "--trainable",
            nargs="+",
            metavar="PART",
            default=["head", "all"],
            help="what to train: head, all, part; default: head all",
        )
        command.add_argument("--max-samples", metavar="N", type=int, help="score at most N rows, a random subset")
        command.add_argument("--batch-size", metavar="N", type=int, default=64, help="rows of a batch; default: 64")
        command.add_argument(
            "--num-workers", metavar="N", type=int, default=0, help="processes that read the data; default: 0"
        )
        command.add_argument("--device", help="cpu, cuda, ...; default: the GPU if there is one")
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="lightning-leep", description="Which source to take, and what transfers achieved."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("history", help="show a folder of transfers: a table, or tab-separated in a pipe")
    command.add_argument("path", help="folder of records, or its fsspec URL")
    command.add_argument("--trainable", help="only transfers that trained this, such as head or all")
    add_report(commands)
    add_sources(commands)
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may hold letters that the encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            if options.command == "history":
                status = show_history(options.path, options.trainable)
            else:
                status = show_report(options) if options.command == "report" else run_sources(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        kept = getattr(options, "folder", None)
        _say(f"Interrupted. The same command goes on with what {kept} holds." if kept else "Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough; Python flushes again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning in one line, without the place in the code."""
    _say(f"Warning: {message}")


def _say(message: str) -> None:
    print(printable(message), file=sys.stderr)


def _fail(message: str) -> int:
    _say(message)
    return 2
