"""The commands ``lightning-leep rank`` and ``lightning-leep score``."""

import argparse
import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import torch

from lightning_leep.forecast import forecast_accuracy
from lightning_leep.ranking.data import TargetData
from lightning_leep.ranking.order import own_words
from lightning_leep.ranking.passes import Passes
from lightning_leep.ranking.rank import default_device, rank_sources
from lightning_leep.ranking.zoo import as_source, read_data, read_zoo
from lightning_leep.records.ranking_text import ranking_text

#: Exit status of a ranking in which some sources failed or were left out, and of one without any source.
INCOMPLETE, NONE_RANKED = 3, 1


def rank(options: argparse.Namespace) -> int:
    """Rank the sources of a zoo, print the table or JSON, and return the exit status."""
    if options.out is not None and Path(options.out).is_dir():
        raise ValueError(f"--out must be a file, got the folder {options.out}.")
    sources, data = read_zoo(options.zoo)
    rows = _data(options, data, f", or give {options.zoo} an entry `data`")
    ranking = rank_sources(
        sources,
        rows,
        trainable=options.trainable,
        by=options.by,
        history=options.history,
        target=options.target,
        max_samples=options.max_samples,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        device=_device(options.device),
        folder=options.folder,
        time_budget=options.time_budget,
    )
    if options.json:
        print(ranking.to_json())
    else:  # as wide as the terminal, 80 columns in a pipe
        print(ranking_text(ranking, get_terminal_size().columns if sys.stdout.isatty() else 80))
    if options.out is not None:  # after it was printed, since a file may fail
        ranking.to_json(options.out)
    if ranking.best is None:
        return NONE_RANKED
    return INCOMPLETE if any(source.rank is None for source in ranking.sources) else 0


def score(options: argparse.Namespace) -> int:
    """Score one source, print its report, and return the exit status; ``SourceError`` if the source fails."""
    if options.source.endswith((".yaml", ".yml", ".json")):
        sources, data = read_zoo(options.source)
        if len(sources) != 1:
            raise ValueError(f"{options.source} must hold one source, got {sorted(sources)}.")
        ((name, source),) = sources.items()
    else:
        name, data = options.source, None
        source = as_source(name, name)
    rows = TargetData(_data(options, data), options.max_samples, options.batch_size, options.num_workers)
    report = Passes(None, _device(options.device), "32-true").score(source, rows.batches(source), sys.stderr.isatty())
    if options.json:
        print(report.to_json())
        return 0
    print(report)
    for trainable in options.trainable:
        if (forecast := forecast_accuracy(report, trainable=trainable)) is not None:
            print(forecast.describe())
    for note in own_words(options.trainable):
        print(f"- {note}")
    return 0


def _data(options: argparse.Namespace, of_zoo: Any, or_else: str = "") -> Any:
    if options.data is None and of_zoo is None:
        raise ValueError(f"Pass --data{or_else}.")
    return read_data(of_zoo if options.data is None else options.data)


def _device(name: str | None) -> torch.device:
    try:
        device = default_device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # of a name, of a build without CUDA
        raise ValueError(f"--device must name a device that PyTorch can use here, got {name!r}.") from error
    return device
