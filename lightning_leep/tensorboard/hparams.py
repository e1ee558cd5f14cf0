"""Predicted and achieved accuracy as columns of TensorBoard's HPARAMS tab.

How that tab works (TensorBoard 2.21, both of its readers): one record, the experiment, names the columns of
hyper-parameters and of metrics. In a run the first such record counts and later ones are ignored; of all the runs in a
log directory the experiment of one counts for all. The value in a metric's column is the last of that tag's scalars.

Lightning's TensorBoardLogger writes an experiment with the metric ``hp_metric`` (-1) when training starts. So the
columns are declared just before it does, beside ``hp_metric`` (:func:`declare_hparams`); the values follow by
themselves, as scalars are logged. A run folder of its own would not help: one more row, and the same columns.
"""

from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor


def lightning_logs_hparams(trainer: Any) -> bool:
    """Whether Lightning is going to write a row of HPARAMS: it does where ``save_hyperparameters()`` was called."""
    return bool(_holders(trainer))


def saved_hparams(trainer: Any) -> dict[str, Any]:
    """What the user's module and data module keep by ``save_hyperparameters()``, and Lightning therefore logs."""
    hparams = {name: value for holder in _holders(trainer) for name, value in holder.hparams_initial.items()}
    hparams.pop("_class_path", None)  # LightningCLI's own, which Lightning does not log either
    return hparams


def _holders(trainer: Any) -> list[Any]:
    # Private, but it alone knows of `save_hyperparameters(logger=False)`.
    holders = (trainer.lightning_module, trainer.datamodule)
    return [holder for holder in holders if getattr(holder, "_log_hyperparams", False)]


def declare_hparams(logger: Any, hparams: Mapping[str, Any], metric_tags: Iterable[str]) -> None:
    """Name the columns of HPARAMS before Lightning does: to be called in ``on_fit_start``, which comes just before.

    To be called where :func:`lightning_logs_hparams` only: elsewhere the user may yet write a row of their own. For the
    same reason only a logger that is about to write ``hp_metric`` is written to, and ``hp_metric`` stays a column; a
    user who switched it off (``default_hp_metric=False``) and names metrics of their own keeps exactly those.

    Args:
        logger: A Lightning logger; one that is not TensorBoard's is passed over.
        hparams: The user's hyper-parameters (:func:`saved_hparams`) and those to show beside them. Nested ones are
            flattened and named as Lightning does.
        metric_tags: Tags of the scalars that become columns. They may be logged later, or never.
    """
    if getattr(logger, "_default_hp_metric", False):
        log_hparams(logger, hparams, ("hp_metric", *metric_tags))


def log_hparams(logger: Any, hparams: Mapping[str, Any], metric_tags: Iterable[str]) -> None:
    """Write the run's row of HPARAMS. At the end of training this fills in for whoever has not written one.

    Where the run has its row, from :func:`declare_hparams` or from the user, that one stays as it is.

    Args:
        logger: A Lightning logger; one that is not TensorBoard's is passed over.
        hparams: As for :func:`declare_hparams`.
        metric_tags: Tags of the scalars that become columns.
    """
    experiment: Any = getattr(logger, "experiment", None)
    # After `close` it is None, and the run has its row.
    writer: Any = getattr(experiment, "file_writer", None) if hasattr(experiment, "add_hparams") else None
    if not hasattr(writer, "add_summary"):
        return
    from torch.utils.tensorboard.summary import hparams as summaries

    for summary in summaries(flatten_hparams(hparams), dict.fromkeys(metric_tags, 0.0)):
        writer.add_summary(summary)


def flatten_hparams(hparams: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Hyper-parameters by their path, as plain values; anything else as its string, as Lightning logs them.

    Example:
        >>> flatten_hparams({"optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}, "augment": None})
        {'optimizer/lr': 0.1, 'optimizer/betas': '(0.9, 0.99)', 'augment': 'None'}
    """
    flat: dict[str, bool | int | float | str] = {}
    for name, value in hparams.items():
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        elif isinstance(value, Namespace):
            value = vars(value)
        elif isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            value = {str(i): item for i, item in enumerate(value)}
        if isinstance(value, Mapping):
            flat.update({f"{name}/{inner}": v for inner, v in flatten_hparams(value).items()})
        elif isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1):
            flat[str(name)] = value.item()
        else:
            flat[str(name)] = value if type(value) in (bool, int, float, str) else str(value)
    return flat
