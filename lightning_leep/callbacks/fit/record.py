"""The record that a fit leaves in the history: where it goes, what it calls things, and whether it is complete."""

import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from lightning_leep.callbacks.fit.logs import RunLogs
from lightning_leep.callbacks.fit.trainer_facts import TrainerFacts
from lightning_leep.records import TransferRecord, save_record
from lightning_leep.records.folder import Folder
from lightning_leep.records.ranking import Ranking
from lightning_leep.tensorboard.ranking import ranking_markdown
from lightning_leep.utils.checks import check_name

#: Folder of the history under ``trainer.default_root_dir``.
DEFAULT_FOLDER = "transfer_history"


@dataclass(frozen=True)
class RecordKeeper:
    """What LEEPCallback was told about the history: its arguments of the same names."""

    history: Folder | Literal[False] | None
    trainable: str | None
    target_name: str | None
    source_name: str | None
    ranking: Ranking | Folder | None = None

    def __post_init__(self) -> None:
        given = self.history
        if not (given is None or given is False or (isinstance(given, str | os.PathLike) and os.fspath(given))):
            raise TypeError(f"`history` must be a folder, an fsspec URL, False or None, got {given!r}.")
        for argument in ("trainable", "target_name", "source_name"):
            check_name(argument, getattr(self, argument))
        if self.ranking is not None and not isinstance(self.ranking, Ranking | str | os.PathLike):
            raise TypeError(f"`ranking` must be a Ranking, its JSON file or None, got {self.ranking!r:.100}.")

    @cached_property
    def known_ranking(self) -> Ranking | None:
        """The ranking, read once; ``OSError`` if its file cannot be read, ``ValueError`` if it holds no ranking."""
        return self.ranking if isinstance(self.ranking, Ranking | None) else Ranking.from_json(self.ranking)

    def show_ranking(self, logs: RunLogs, order_held: str = "") -> None:
        """Log the ranking with the place of the source and, at the end, whether the order held."""
        with logs.barrier.contain("show the ranking", "`ranking=` must be a ranking, or its JSON file."):
            # Other processes may not see the file.
            if logs.trainer.is_global_zero and (ranking := self.known_ranking) is not None:
                logs.ranking(ranking, ranking_markdown(ranking, logs.source_name, order_held))

    def folder(self, trainer: Any) -> Folder | None:
        """Where the records are; None without a history, and with ``fast_dev_run``, which only tries the code."""
        if self.history is False or trainer.fast_dev_run:
            return None
        return self.history or os.path.join(trainer.default_root_dir, DEFAULT_FOLDER)

    def source(self, pl_module: Any, source: Callable[..., Any] | None) -> str:
        """What to call the source: the class of a module, the name of a function."""
        if self.source_name is not None:
            return self.source_name
        holder = pl_module if source is None else source
        return getattr(holder, "__name__", type(holder).__name__)

    def readable_ranking(self) -> Ranking | None:
        """The ranking; None for one that cannot be read, which is said when it is shown."""
        with suppress(OSError, ValueError):
            return self.known_ranking
        return None

    def save(self, trainer: Any, record: TransferRecord) -> None:
        """Write the record of a fit that is over, on the first process; none without a validation."""
        folder = self.folder(trainer)
        if folder is not None and len(record.curve) and trainer.is_global_zero:
            save_record(record, folder)


def saw_all_data(trainer: Any, facts: TrainerFacts) -> bool:
    """Whether the run saw each batch of its data at least once, unless less was planned."""
    if trainer.overfit_batches:
        return False
    if not math.isfinite(trainer.num_training_batches):
        return True
    epoch = min(1.0, facts.max_epochs or 1.0)
    batches: int = trainer.fit_loop.epoch_loop.batch_progress.total.processed
    return batches >= math.floor(epoch * trainer.num_training_batches)
