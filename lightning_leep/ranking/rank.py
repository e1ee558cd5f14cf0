"""Score sources on the same rows, one after the other, and rank them."""

import math
import os
import time
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from lightning_leep.functional.inputs import check_flag, check_num_classes
from lightning_leep.ranking.data import KEPT_BYTES, SharedBatches, TargetData
from lightning_leep.ranking.hub import LaterTransform
from lightning_leep.ranking.kept_reports import KeptReports
from lightning_leep.ranking.order import Candidates, Wanted, ranked
from lightning_leep.ranking.passes import Passes, SourceError, described
from lightning_leep.ranking.progress import ranking_progress
from lightning_leep.ranking.ranking import SourceRanking
from lightning_leep.ranking.source import Source, as_sources
from lightning_leep.records import TransferRecord
from lightning_leep.records.folder import Folder
from lightning_leep.scoring.source import preserved_rng
from lightning_leep.utils.checks import check_real
from lightning_leep.utils.distributed import gather_objects, on_every_process, this_process


def rank_sources(
    sources: Mapping[str, Any],
    data: Any,
    num_target_classes: int | None = None,
    *,
    trainable: str | Sequence[str] = ("head", "all"),
    by: str | None = None,
    history: Iterable[TransferRecord] | Folder | None = None,
    target: str | None = None,
    max_samples: int | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    precision: str | Callable[[], AbstractContextManager] = "32-true",
    folder: Folder | None = None,
    time_budget: float | None = None,
    progress: bool = True,
) -> SourceRanking:
    """Score pre-trained models on the same labelled target data, and rank them by the accuracy that each forecasts.

    The sources are scored one after the other, as by :func:`~lightning_leep.score`, without the permutation test and
    the scores of single layers, which no ranking shows. One that fails is listed with its error, and the others go on;
    if memory runs out, it is tried again with half as many rows at a time. Under an initialised process group all
    processes share the rows of each source and return the same ranking.

    Args:
        sources: Modules, functions or :class:`~lightning_leep.Source` by name.
        data: A data set of labelled rows, whose inputs go through each source's transform; or a DataLoader or another
            iterable of batches that all sources take as they are. Sources with the same transform share its work.
        num_target_classes: C. None takes the largest label plus 1.
        trainable: The parts that may be trained, such as "head" or "all": each gets a forecast.
        by: The column that orders the sources, see :func:`~lightning_leep.rank_reports`; None for the forecast of the
            first of ``trainable``.
        history: Earlier transfers, or their folder.
        target: Name of the target data, as in the history; None for the class of the data set.
        max_samples: Largest number of rows: a random subset, the same for all sources and in every run.
        batch_size: Rows of a batch, if ``data`` is a data set.
        num_workers: Processes that read a data set.
        device: Where models of factories go; None for the GPU of this process, if there is one. Given modules stay
            where they are.
        precision: As in :func:`~lightning_leep.score`.
        folder: Path or fsspec URL where the report of each source is kept as it is done. A ranking that was interrupted
            goes on there and scores nothing twice, if sources, rows and options have kept their names and sizes; give
            each data set a folder of its own.
        time_budget: Seconds to spend. Two batches of each source show how long it takes, which counts as well. The
            sources that take the least are scored first, and those for which no time is left are listed without a rank.
        progress: Whether the first process shows a progress bar.

    Returns:
        The ranking, best first.

    Raises:
        TypeError: If an argument has the wrong type, or a row of the data has no label.
        ValueError: If an argument is impossible.
        RuntimeError: If all sources fail with the same error.

    Example:
        >>> import torch
        >>> labels = torch.arange(60) % 3
        >>> data = torch.utils.data.TensorDataset(torch.eye(3)[labels], labels)
        >>> ranking = rank_sources({"identity": torch.nn.Linear(3, 4)}, data, trainable="head", progress=False)
        >>> ranking.best, ranking.num_samples
        ('identity', 60)
    """
    known = {name: _without_unshown(source) for name, source in as_sources(sources).items()}
    rows = TargetData(data, max_samples, batch_size, num_workers)
    wanted = Wanted(trainable, by, history, rows.name if target is None else target)
    check_flag("progress", progress)
    if num_target_classes is not None:
        check_num_classes("num_target_classes", num_target_classes)
    if time_budget is not None:
        check_real("time_budget", time_budget, 0, missing=False)
    here, first = default_device(device), this_process()[0] == 0
    passes = Passes(num_target_classes, here, precision)
    found = Candidates(accuracies={name: source.source_accuracy for name, source in known.items()})
    with preserved_rng():  # factories and data sets may draw from it
        if any(source.scoring_options().split_batch is None for source in known.values()):
            rows.check_rows()
        kept = on_every_process(lambda: KeptReports(folder if first else None), here)
        _score_all(known, rows, passes, kept, found, time_budget, progress)
    if len(found.errors) == len(known) and len(set(found.errors.values())) == 1:
        raise RuntimeError(f"No source could be scored: {next(iter(found.errors.values()))}")
    # One process may see a history that the others do not.
    return gather_objects(on_every_process(lambda: ranked(found, wanted) if first else None, here), here)[0]  # type: ignore[return-value]


def _score_all(
    sources: Mapping[str, Source],
    rows: TargetData,
    passes: Passes,
    kept: KeptReports,
    found: Candidates,
    time_budget: float | None,
    progress: bool,
) -> None:
    """Fill in what comes of each source, the same on all processes."""
    start, here = time.perf_counter(), passes.device
    settings = {name: _setting(name, source, rows, passes) for name, source in sources.items() if kept.is_used}
    loaded = gather_objects({name: kept.load(setting) for name, setting in settings.items()}, here)[0]
    found.reports.update({name: report for name, report in loaded.items() if report is not None})
    keys: dict[str, Hashable] = {}
    for name in [name for name in sources if name not in found.reports]:
        try:
            keys[name] = on_every_process(partial(rows.key, sources[name]), here)
        except Exception as error:
            found.errors[name] = described(error)
    groups = list(dict.fromkeys(keys.values()))
    order = sorted(keys, key=lambda name: groups.index(keys[name]))  # those that share batches, together
    seconds: dict[str, float] = {}
    if time_budget is not None:
        seconds = {
            name: passes.estimated_seconds(sources[name], partial(rows.batches, sources[name])) for name in order
        }
        order.sort(key=seconds.__getitem__)
    opened: dict[Hashable, SharedBatches] = {}
    shown = progress and this_process()[0] == 0
    with ranking_progress(len(order), shown) as begin:
        for place, name in enumerate(order):
            if time_budget is not None:
                left = time_budget - max(gather_objects(time.perf_counter() - start, here))
                if reason := _why_left_out(seconds[name], left):
                    found.left_out[name] = reason
                    continue
            try:
                key, later = keys[name], {keys[other] for other in order[place + 1 :]}
                opened = {other: batches for other, batches in opened.items() if other in {key, *later}}
                if key not in opened:
                    free = KEPT_BYTES - sum(batches.num_bytes for batches in opened.values())
                    opened[key] = rows.batches(sources[name], free if key in later else 0)
                batches = opened[key]
                if begin is not None:
                    begin(name, batches)
                report = passes.score(sources[name], batches, shown and begin is None)
            except (SourceError, ValueError) as error:
                found.errors[name] = str(error)
                continue
            found.reports[name] = report
            found.notes.update(dict.fromkeys(batches.notes))
            try:
                kept.save(settings.get(name, {}), report)
            except Exception as error:  # such as a full disk; the ranking matters more
                reason = getattr(error, "strerror", None) or described(error)
                found.notes[f"Reports could not be kept: {reason}. After an interruption they are made again."] = None


def _without_unshown(source: Source) -> Source:
    """The source without the scores that no ranking shows."""
    return replace(source, options=replace(source.options, num_permutations=0, each_layer=False))


def _why_left_out(needed: float, left: float) -> str:
    """Why there is no time for a source, as a sentence; empty if there is. One that fails at once takes none."""
    if left > 0 and not left < needed < math.inf:
        return ""
    text = f"it needs about {_duration(needed)}, and " if needed < math.inf else ""
    rest = f"{_duration(left)} of the time budget were left" if left > 0 else "the time budget was used up"
    return f"Left out: {text}{rest}."


def _duration(seconds: float) -> str:
    if seconds >= 90:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1g} s"


def _setting(name: str, source: Source, rows: TargetData, passes: Passes) -> dict[str, str]:
    """What decides a report, as far as it can be told: functions are known by their names only."""
    options = replace(source.scoring_options(), split_batch=None)
    parts = {
        "source": name,
        "model": _described(source.model),
        "transform": _described(source.transform),
        "options": replace(options, pooling="auto") if callable(options.pooling) else options,
        "rows": rows.known_by(),
        "classes": passes.num_target_classes,
        "precision": passes.precision if isinstance(passes.precision, str) else None,
    }
    return {part: value if isinstance(value, str) else repr(value) for part, value in parts.items()}


def _described(part: Any) -> str:
    if isinstance(part, nn.Module):
        with suppress(Exception):  # weights that do not exist yet, or of a kind that has no bytes
            checksum = 0
            for value in (*part.parameters(), *part.buffers()):  # statistics of batch normalisation are among them
                content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                checksum = zlib.crc32(content.numpy().tobytes(), checksum)
            return f"{type(part).__qualname__} {sum(p.numel() for p in part.parameters())} {checksum}"
    if isinstance(part, LaterTransform):
        return _described(part.make)
    if isinstance(part, partial):
        return f"{_described(part.func)} {part.args!r} {part.keywords!r}"
    return getattr(part, "__qualname__", type(part).__qualname__)


def default_device(device: torch.device | str | None) -> torch.device:
    """Return where models of factories go, and where processes meet: the given device, else this process's GPU."""
    if device is not None:
        return torch.device(device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
