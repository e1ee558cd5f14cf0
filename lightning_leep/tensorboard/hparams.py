"""Predicted and achieved accuracy as columns of TensorBoard's HPARAMS tab.

How that tab works (TensorBoard 2.21, both of its readers): one record, the experiment, names the columns of
hyper-parameters and of metrics. In a run the first such record counts and later ones are ignored; of all the runs in a
log directory the experiment of one counts for all. The value in a metric's column is the last of that tag's scalars.

Lightning's TensorBoardLogger writes an experiment with the metric ``hp_metric`` (-1) when training starts, if a module
or data module has called ``save_hyperparameters()``. Whatever is written after it is lost, and whatever was written
before it, by the user, counts. So :func:`widen_hparams` adds columns to the record that Lightning is about to write,
and only where nobody has written one by the end of the fit :func:`complete_hparams` does. The values follow by
themselves, as scalars are logged. A run folder of its own would not help: one more row, and the same columns.
"""

from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor

#: Packages whose loggers write HPARAMS as described above.
LIGHTNING = ("lightning", "lightning_fabric", "pytorch_lightning")


def widen_hparams(
    logger: Any,
    hparams: Mapping[str, Any],
    metric_tags: Iterable[str],
    guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Callable[[], None]:
    """Have the next row of HPARAMS that ``logger.log_hyperparams`` writes without metrics show more columns.

    To be called in ``on_fit_start`` and taken back once training starts: Lightning logs hyper-parameters in between,
    after the hooks in which the user may do so. A row of the user's with metrics, before, in between or later, is
    theirs alone, and so are the rows of a logger that writes none by itself (``default_hp_metric=False``) or that has
    a ``log_hyperparams`` of the user's own. ``hp_metric`` stays a column.

    Args:
        logger: A Lightning logger; one that is not TensorBoard's is passed over.
        hparams: Hyper-parameters to show beside the user's.
        metric_tags: Tags of the scalars that become columns. They may be logged later, or never.
        guard: Makes the context in which they are written, to contain faults for example.

    Returns:
        What takes it back; it may be called more than once.
    """
    if not _writes_rows(logger) or "log_hyperparams" in vars(logger):
        return lambda: None
    original = logger.log_hyperparams
    tags = ("hp_metric", *metric_tags)

    def take_back() -> None:
        if vars(logger).get("log_hyperparams") is log_hyperparams:
            del logger.log_hyperparams

    def log_hyperparams(params: Any = None, metrics: Any = None, *args: Any, **kwargs: Any) -> None:
        take_back()
        if metrics is None:
            with guard():
                log_hparams(logger, {**_as_mapping(params), **hparams}, tags)
        original(params, metrics, *args, **kwargs)

    # In place of the method, since no hook comes after the user's and before Lightning's own call.
    logger.log_hyperparams = log_hyperparams
    return take_back


def complete_hparams(logger: Any, hparams: Mapping[str, Any], metric_tags: Iterable[str]) -> None:
    """Write the run's row of HPARAMS at the end of a fit in which neither Lightning nor the user has written one.

    A logger that writes none by itself (``default_hp_metric=False``) is left to the user, who may do so later.

    Args:
        logger: A Lightning logger; one that is not TensorBoard's is passed over.
        hparams: Hyper-parameters.
        metric_tags: Tags of the scalars that become columns.
    """
    if _writes_rows(logger) and not getattr(logger, "hparams", None):
        log_hparams(logger, hparams, metric_tags)


def log_hparams(logger: Any, hparams: Mapping[str, Any], metric_tags: Iterable[str]) -> None:
    """Write the run's row of HPARAMS; where the run has one, that one stays as it is.

    ``log_hparams(trainer.logger, {"lr": 0.1}, hparam_tags())`` after ``fit`` shows the transfer where the logger has
    ``default_hp_metric=False`` and nobody has written a row.

    Args:
        logger: A Lightning logger; one that is not TensorBoard's is passed over.
        hparams: Hyper-parameters. Nested ones are flattened and named as Lightning does.
        metric_tags: Tags of the scalars that become columns, see :func:`~lightning_leep.tensorboard.hparam_tags`.
    """
    experiment: Any = getattr(logger, "experiment", None)
    if not hasattr(experiment, "add_hparams"):
        return
    # Opens a new file where training has closed the one before. On all processes but the first it is a dummy.
    writer = experiment._get_file_writer()
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


def _writes_rows(logger: Any) -> bool:
    """Whether it is a TensorBoardLogger with Lightning's own way to write HPARAMS, not turned off by the user."""
    defined = next((cls.__module__ for cls in type(logger).__mro__ if "log_hyperparams" in vars(cls)), "")
    return bool(getattr(logger, "_default_hp_metric", False)) and defined.split(".")[0] in LIGHTNING


def _as_mapping(params: Any) -> Mapping[str, Any]:
    if params is None:
        return {}
    return vars(params) if isinstance(params, Namespace) else params
