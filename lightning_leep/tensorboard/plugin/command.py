"""``lightning-leep report HISTORY``: the page as a file."""

import argparse
import os
from typing import Any

from lightning_leep.records.folder import open_folder
from lightning_leep.records.history import load_history
from lightning_leep.records.ranking import Ranking

#: Where the callback writes, in the folder of the Trainer.
DEFAULT_FOLDER = "transfer_history"


def no_transfers(fs: Any, root: str, path: str, kind: str = "") -> str:
    """Say that a folder holds no transfers, and where they may be."""
    hint = f" Try {path.rstrip('/')}/{DEFAULT_FOLDER}." if fs.exists(f"{root}/{DEFAULT_FOLDER}") else ""
    return f"No transfers{kind} in {path}.{hint}"


def add_report(commands: Any) -> None:
    """Add the command to the subparsers of ``argparse``."""
    command = commands.add_parser("report", help="write one HTML page that shows a folder of transfers")
    command.add_argument("path", help="folder of records, or its fsspec URL")
    command.add_argument("--ranking", metavar="FILE", help="JSON file of a ranking of sources, to show as well")
    command.add_argument(
        "-o", "--output", metavar="FILE", default="report.html", help="file to write; default: report.html"
    )


def write_report(options: argparse.Namespace) -> str:
    """Write the page and return a line about it."""
    from lightning_leep.tensorboard.plugin.page_data import page_data
    from lightning_leep.tensorboard.plugin.report_html import report_html

    fs, root = open_folder(options.path)
    if not fs.exists(root):
        raise ValueError(f"There is no folder {options.path}.")
    rankings = [] if options.ranking is None else [Ranking.from_json(options.ranking)]
    history = load_history(options.path)
    if not len(history) and not rankings:
        raise ValueError(no_transfers(fs, root, options.path))
    page = report_html(page_data(history, rankings))
    with open(options.output, "w", encoding="utf-8") as file:
        file.write(page)
    count = f"{len(history)} transfer{'' if len(history) == 1 else 's'}"
    return f"{os.path.abspath(options.output)}: {count}, {len(page) / 1000:.0f} kB. Open it in a browser."
