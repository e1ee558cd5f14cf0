"""Predicted and achieved accuracy as columns of TensorBoard's HPARAMS tab.

How that tab works (TensorBoard 2.21, with either data server): one record, the experiment, names the columns of
hyper-parameters and of metrics. The first such record of a run counts; later ones are ignored. One run's experiment
sets the columns of all runs in a log directory. A metric's column shows the last scalar of that tag.

Lightning's TensorBoardLogger writes an experiment with the metric ``hp_metric`` (-1) when training starts, if a module
or data module has called ``save_hyperparameters()``. Anything written later is lost; anything that the user wrote
earlier counts. So :func:`widen_hparams` adds columns to the record that Lightning is about to write, and
:func:`complete_hparams` writes a record at the end of a fit that has none. The values need no further work: they are
the logged scalars. A run folder of our own would not help: it would add a row with the same columns.
"""

from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lightning_leep.tensorboard.writer import tag_of

#: Packages whose loggers write HPARAMS as described above.
LIGHTNING = ("lightning", "lightning_fabric", "pytorch_lightning")


def widen_hparams(
    logger: Any,
    hparams: Mapping[str, Any],
    metric_tags: Iterable[str],
    guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Callable[[], None]:
    """Add columns to the next row of HPARAMS that ``logger.log_hyperparams`` writes without metrics.

    Call it in ``on_fit_start`` and undo it once training starts. In between Lightning logs the hyper-parameters, after
    the hooks in which the user may log some. A row that the user writes with metrics is left alone, whenever it is
    written. So are the rows of a logger that writes none by itself (``default_hp_metric=False``) and of a logger whose
    ``log_hyperparams`` the user has replaced. ``hp_metric`` stays a column.

    Args:
        logger: A Lightning logger; one that is not TensorBoard's is skipped.
        hparams: Hyper-parameters to show next to the user's.
        metric_tags: Tags of the scalars that become columns. They may be logged later, or never.
        guard: Returns the context in which they are written, for example one that contains faults.

    Returns:
        A function that undoes it; it may be called more than once.
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

    # The method is replaced because no hook runs after the user's hooks and before Lightning's own call.
    logger.log_hyperparams = log_hyperparams
    return take_back


def complete_hparams(logger: Any, hparams: Mapping[str, Any], metric_tags: Iterable[str]) -> None:
    """Write the row of HPARAMS at the end of a fit in which neither Lightning nor the user has written one.

    A logger that writes none by itself (``default_hp_metric=False``) is skipped: the user may write a row later.

    Args:
        logger: A Lightning logger; one that is not TensorBoard's is skipped.
        hparams: Hyper-parameters.
        metric_tags: Tags of the scalars that become columns.
    """
    if _writes_rows(logger) and not getattr(logger, "hparams", None):
        log_hparams(logger, hparams, metric_tags)


def log_hparams(logger: Any, hparams: Mapping[str, Any], metric_tags: Iterable[str]) -> None:
    """Write the row of HPARAMS; a row that the run already has stays as it is.

    ``log_hparams(trainer.logger, {"lr": 0.1}, hparam_tags())`` after ``fit`` shows the transfer of a run whose logger
    has ``default_hp_metric=False`` and which has no row yet.

    Args:
        logger: A Lightning logger; one that is not TensorBoard's is skipped.
        hparams: Hyper-parameters. Nested ones are flattened and named as in Lightning.
        metric_tags: Tags of the scalars that become columns, see ``scalars.hparam_tags``.
    """
    experiment: Any = getattr(logger, "experiment", None)
    if not hasattr(experiment, "add_hparams"):
        return
    # Opens a new file if training has closed the previous one. On all processes but the first it is a dummy.
    writer = experiment._get_file_writer()
    if not hasattr(writer, "add_summary"):
        return
    from torch.utils.tensorboard.summary import hparams as summaries

    tags = [tag if tag == "hp_metric" else tag_of(logger, tag) for tag in metric_tags]
    for summary in summaries(flatten_hparams(hparams), dict.fromkeys(tags, 0.0)):
        writer.add_summary(summary)


def flatten_hparams(hparams: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Hyper-parameters by their path: plain values stay, anything else becomes its string, as in Lightning.

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
    """Whether it is a TensorBoardLogger that writes HPARAMS in Lightning's own way, and the user left that enabled."""
    defined = next((cls.__module__ for cls in type(logger).__mro__ if "log_hyperparams" in vars(cls)), "")
    return bool(getattr(logger, "_default_hp_metric", False)) and defined.split(".")[0] in LIGHTNING


def _as_mapping(params: Any) -> Mapping[str, Any]:
    if params is None:
        return {}
    return vars(params) if isinstance(params, Namespace) else params
