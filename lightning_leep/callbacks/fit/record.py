"""The record that a fit leaves in the history: where it goes, and what the Trainer knows of the run."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lightning_leep.callbacks.fit.watch import TransferWatch
from lightning_leep.callbacks.source.class_info import attribute
from lightning_leep.records import AccuracyCurve, TransferRecord, save_record
from lightning_leep.records.history import Folder

#: Folder of the history under ``trainer.default_root_dir``.
DEFAULT_FOLDER = "transfer_history"
#: Data sets within data sets that are looked through; one that hands on unknown attributes may be endless.
MOST_WRAPPERS = 20


@dataclass(frozen=True, kw_only=True)
class RecordKeeper:
    """What LEEPCallback was told about the history; its arguments of the same names.

    Raises:
        TypeError: If one has the wrong type.
    """

    history: Folder | Literal[False] | None
    strategy: str | None
    data_name: str | None
    model_name: str | None

    def __post_init__(self) -> None:
        given = self.history
        if not (given is None or given is False or (isinstance(given, str | os.PathLike) and os.fspath(given))):
            raise TypeError(f"`history` must be a folder, an fsspec URL, False or None, got {given!r}.")
        for argument in ("strategy", "data_name", "model_name"):
            text = getattr(self, argument)
            if text is not None and (not isinstance(text, str) or not text):
                raise TypeError(f"`{argument}` must be a name or None, got {text!r}.")

    def folder(self, trainer: Any) -> Folder | None:
        """Where records are; None if no history is kept, as in a run of a few batches that only tries the code."""
        if self.history is False or trainer.fast_dev_run:
            return None
        return self.history or os.path.join(trainer.default_root_dir, DEFAULT_FOLDER)

    def model(self, pl_module: Any, source: Callable[..., Any] | None) -> str:
        """What to call the source: the class of a module, the name of a function."""
        if self.model_name is not None:
            return self.model_name
        holder = pl_module if source is None else source
        return getattr(holder, "__name__", type(holder).__name__)

    def data(self, trainer: Any) -> str:
        """What to call the target data: the class of the datamodule or of the data set."""
        if self.data_name is not None:
            return self.data_name
        if trainer.datamodule is not None:
            return type(trainer.datamodule).__name__
        dataset = attribute(trainer.train_dataloader, "dataset")
        for _ in range(MOST_WRAPPERS):
            inner = attribute(dataset, "dataset")
            if inner is None or inner is dataset:
                break
            dataset = inner
        return "" if dataset is None else type(dataset).__name__

    def save(self, trainer: Any, watch: TransferWatch, model: str, strategy: str, first_epoch: int) -> None:
        """Write the record of a fit that is over, on the first process; nothing without a validation.

        Args:
            trainer: The trainer.
            watch: What the fit achieved.
            model: Name of the source.
            strategy: What was trained.
            first_epoch: Epochs that the Trainer had trained another module for before.
        """
        folder = self.folder(trainer)
        if folder is None or not len(watch.curve) or not trainer.is_global_zero:
            return
        optimizer, learning_rate = first_optimizer(trainer)
        record = TransferRecord(
            report=watch.report,
            curve=AccuracyCurve(tuple(e - first_epoch for e in watch.curve.epochs), watch.curve.accuracy),
            trainable=strategy,
            wall_seconds=watch.seconds,
            reference=watch.reference,
            test_size=validation_rows(trainer, watch.monitor),
            optimizer=optimizer,
            learning_rate=learning_rate,
            target_name=self.data(trainer),
            source_name=model,
            complete=watch.ran_its_course(trainer),
        )
        save_record(record, folder)


def validation_rows(trainer: Any, monitor: str | None) -> int | None:
    """Rows of each validation, of all processes; None where loaders do not tell."""
    loaders = trainer.val_dataloaders
    limits = trainer.num_val_batches
    if isinstance(loaders, list | tuple):
        index = 0
        if len(loaders) > 1:
            _, _, number = (monitor or "").rpartition("/dataloader_idx_")
            if not number.isdigit() or int(number) >= len(loaders):
                return None
            index = int(number)
        if not loaders:
            return None
        loaders, limits = loaders[index], limits[index : index + 1]
    try:
        rows = len(loaders.dataset)
        if limits[0] < len(loaders):
            rows = min(rows, int(limits[0]) * loaders.batch_size * trainer.world_size)
    except (TypeError, AttributeError, IndexError):  # iterable, or with batches of no fixed size
        return None
    return rows or None


def first_optimizer(trainer: Any) -> tuple[str, float | None]:
    """Class of the first optimizer and the learning rate that it started from; a schedule may have changed it since."""
    if not trainer.optimizers:
        return "", None
    optimizer = trainer.optimizers[0]
    group = optimizer.param_groups[0]
    rate = group.get("initial_lr", group.get("lr"))
    return type(optimizer).__name__, None if rate is None else float(rate)
