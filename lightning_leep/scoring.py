"""One pass of a source model over labelled target data: the only place that runs a model."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from pytorch_lightning.utilities import move_data_to_device, rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn
from tqdm.auto import tqdm

from lightning_leep.batches import Adapter, source_module, source_output, split_batch
from lightning_leep.functional.inputs import check_ignore_index, check_layout, check_num_classes
from lightning_leep.metrics import EEPScores
from lightning_leep.report import TransferabilityReport


class OtherProcessError(RuntimeError):
    """Something failed on another process, whose own error says what."""


AUTOCAST_DTYPES = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def score(
    source: Callable[..., Any],
    dataloader: Iterable[Any],
    num_target_classes: int,
    *,
    from_logits: bool = True,
    ignore_index: int | None = None,
    adapter: Adapter = split_batch,
    device: torch.device | str | None = None,
    precision: str | Callable[[], AbstractContextManager] = "32-true",
    transfer: Callable[[Any], Any] | None = None,
    progress: bool = True,
) -> TransferabilityReport:
    """Run a pre-trained classifier over labelled target data once and report how well it will transfer.

    The source is run in evaluation mode without gradients. The mode of each of its modules and the state of the
    random number generators are as before afterwards, whatever happens. Under an initialised process group every
    process scores its own batches (some may have none) and all return the report of all rows.

    Args:
        source: Classifier with its original head: a module, or a callable (a bound method of a module counts as that
            module) from inputs to logits ``[N, Z]`` or ``[N, Z, d1, ...]``, or to something with ``.logits``.
        dataloader: Batches of this process: pairs ``(inputs, target)``, mappings with ``labels``, or what ``adapter``
            takes.
        num_target_classes: C.
        from_logits: Whether the source returns logits or probabilities.
        ignore_index: Label of the rows that are left out.
        adapter: Function from a batch to ``(inputs, target)``.
        device: Where the batches go; None for where the source's parameters are (CPU if it has none). The source
            itself is not moved.
        precision: "32-true", "16-mixed" or "bf16-mixed" (autocast), or a function that returns the context in which
            the source is called.
        transfer: Function that brings a batch to the device; replaces the plain move to ``device``.
        progress: Whether the first process shows a progress bar.

    Returns:
        The report, with the joint ``[C, Z]`` attached.

    Raises:
        TypeError: If batches, outputs or labels have the wrong type.
        ValueError: If an argument or a batch is invalid, or there are fewer than 2 labelled rows.
        OtherProcessError: If another process failed; its own error is raised there.
    """
    check_num_classes("num_target_classes", num_target_classes)
    check_ignore_index(ignore_index)
    module = source_module(source)
    device = _device(module, device)
    if not callable(precision) and precision not in AUTOCAST_DTYPES:
        raise ValueError(f"`precision` must be one of {sorted(AUTOCAST_DTYPES)} or a function, got {precision!r}.")
    context = precision if callable(precision) else partial(_autocast, device, AUTOCAST_DTYPES[precision])
    transfer = transfer or partial(move_data_to_device, device=device)

    new_scores = partial(
        EEPScores,
        num_target_classes=num_target_classes,
        from_logits=from_logits,
        ignore_index=ignore_index,
        sync_on_compute=False,
    )
    start = time.perf_counter()
    scores: EEPScores | None = None
    num_source_classes = 0
    fault: BaseException | None = None
    with preserved_rng(), evaluation_mode(module), torch.no_grad():
        try:
            for batch in _progress_bar(dataloader, progress):
                inputs, target = adapter(transfer(batch))
                with context():
                    preds = source_output(source, inputs)
                if scores is None:
                    check_layout(preds, target, None)
                    num_source_classes = preds.shape[1]
                    scores = new_scores(num_source_classes=num_source_classes).to(preds.device)
                scores.update(preds, target.to(preds.device))
        except Exception as error:
            fault = error
        # A process that fails must say so before the others wait for its sums, and one without data learns Z here.
        num_source_classes = _agree(fault, num_source_classes, device)
        if scores is None:
            scores = new_scores(num_source_classes=num_source_classes).to(device)
        with warnings.catch_warnings(), scores.sync_context():
            joint, counts = scores.joint.cpu(), scores.class_counts.cpu()
            warnings.simplefilter("ignore", UserWarning)  # a process may well have seen no batch
            values: dict[str, Any] = {name: float(value) for name, value in scores.compute().items()}
    n = int(counts.sum())
    if n < 2:
        raise ValueError(f"`dataloader` must hold at least 2 labelled rows, got {n}.")
    frequency = counts[counts > 0].double() / n
    seconds = time.perf_counter() - start
    return TransferabilityReport(
        num_samples=n,
        num_target_classes=num_target_classes,
        num_source_classes=num_source_classes,
        class_counts=tuple(counts.tolist()),
        label_entropy=float(-(frequency * frequency.log()).sum()),
        **values,
        seconds=seconds,
        samples_per_second=n / seconds,
        joint=joint,
    )


def _device(module: nn.Module | None, device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    parameter = next(module.parameters(), None) if module is not None else None
    return parameter.device if parameter is not None else torch.device("cpu")


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Give Python's, NumPy's and torch's random number generators their states back, after an error too."""
    isolation = isolate_rng()
    isolation.__enter__()
    try:
        yield
    finally:
        # An exception that passes through `isolate_rng` itself would end it before it restores anything.
        isolation.__exit__(None, None, None)


@contextmanager
def evaluation_mode(module: nn.Module | None) -> Iterator[None]:
    """Put a module into evaluation mode and give every submodule its own mode back afterwards."""
    modes = {} if module is None else {submodule: submodule.training for submodule in module.modules()}
    try:
        if module is not None:
            module.eval()
        yield
    finally:
        # Not `module.train()`: it would un-freeze what the user keeps in evaluation mode (BatchNorm, say).
        for submodule, training in modes.items():
            submodule.training = training


def _progress_bar(dataloader: Iterable[Any], progress: bool) -> Iterable[Any]:
    hidden = not progress or getattr(rank_zero_only, "rank", 0) != 0
    return tqdm(dataloader, desc="Scoring the source model", unit="batch", leave=False, disable=hidden)


def _agree(fault: BaseException | None, num_source_classes: int, device: torch.device) -> int:
    """Raise on every process if one failed or they differ in Z; return Z."""
    largest = smallest = num_source_classes
    failed = fault is not None
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        without_data = num_source_classes == 0
        shared = torch.tensor(
            [failed, num_source_classes, -(2**31) if without_data else -num_source_classes], device=device
        )
        torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
        failed, largest, smallest = bool(shared[0]), int(shared[1]), -int(shared[2])
    if fault is not None:
        raise fault
    if failed:
        raise OtherProcessError("Scoring failed on another process; its own message says why.")
    if largest == 0:
        raise ValueError("`dataloader` must hold at least one batch, got none.")
    if largest != smallest:
        raise ValueError(f"`source` must return the same number of classes everywhere, got {smallest} to {largest}.")
    return largest
