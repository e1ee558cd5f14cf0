"""Around the run of a source model: its device, precision and mode, the random state, the progress bar."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from tqdm.auto import tqdm

from lightning_leep.utils.distributed import this_process
from lightning_leep.utils.reachable import reachable_modules

AUTOCAST_DTYPES = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def source_device(source: Callable[..., Any], device: torch.device | str | None) -> torch.device:
    """The device that was asked for, or that of the parameters of the modules that the source calls, or the CPU."""
    if device is not None:
        return torch.device(device)
    parameter = next((p for module in reachable_modules(source) for p in module.parameters()), None)
    return parameter.device if parameter is not None else torch.device("cpu")


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Context in which a source runs at a precision of ``AUTOCAST_DTYPES``."""
    dtype = AUTOCAST_DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Give Python's, NumPy's and torch's random number generators their states back, after an error too."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        torch.cuda.set_rng_state_all(cuda)


@contextmanager
def evaluation_mode(*holders: Any) -> Iterator[None]:
    """Have all modules that objects reach in evaluation mode, and give each its own mode back afterwards.

    The objects are modules, functions that call them, whatever holds them. The flag ``training`` is set and nothing
    else done: a module's own ``train()`` may merge weights, un-freeze what the user froze or refuse to be called.
    """
    # A frozen TorchScript module has no mode.
    modes = [(module, module.training) for module in reachable_modules(*holders) if hasattr(module, "training")]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


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
