"""Around the run of a source model: its device, precision and mode, the random state, the progress bar."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn
from tqdm.auto import tqdm

from lightning_leep.processes import this_process

AUTOCAST_DTYPES = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def source_device(module: nn.Module | None, device: torch.device | str | None) -> torch.device:
    """The device that was asked for, or that of the module's parameters, or the CPU."""
    if device is not None:
        return torch.device(device)
    parameter = next(module.parameters(), None) if module is not None else None
    return parameter.device if parameter is not None else torch.device("cpu")


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Context in which a source runs at a precision of ``AUTOCAST_DTYPES``."""
    dtype = AUTOCAST_DTYPES[precision]
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


def len_or_none(dataloader: Iterable[Any]) -> int | None:
    """Number of batches, where it is known."""
    try:
        return len(dataloader)  # type: ignore[arg-type]
    except TypeError:
        return None


def progress_bar(dataloader: Iterable[Any], progress: bool) -> Iterator[Any]:
    """The batches of the loader, with a progress bar on the first process."""
    first = this_process()[0] == 0 and getattr(rank_zero_only, "rank", 0) == 0
    total = len_or_none(dataloader)
    hidden = not (progress and first)
    with tqdm(total=total, desc="Scoring the source model", unit="batch", leave=False, disable=hidden) as bar:
        # Given the loader, tqdm would ask it for two iterators, and each starts workers of its own.
        for batch in dataloader:
            yield batch
            bar.update()
