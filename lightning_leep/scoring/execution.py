"""Around the run of a source model: its device, precision and mode, the random state, the progress bar."""

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import nn
from tqdm.auto import tqdm

from lightning_leep.scoring.batches import modules_behind, source_module
from lightning_leep.utils.distributed import this_process
from lightning_leep.utils.first_run import on_first_run

TORCH_2_6 = hasattr(torch.compiler, "set_stance")
AUTOCAST_DTYPES = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def source_device(source: Callable[..., Any], device: torch.device | str | None) -> torch.device:
    """The device that was asked for, or that of the parameters of the modules behind the source, or the CPU."""
    if device is not None:
        return torch.device(device)
    parameter = next((p for module in modules_behind(source) for p in module.parameters()), None)
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
def evaluation_mode(source: Callable[..., Any]) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Put a source's modules into evaluation mode, and restore the mode of each afterwards.

    Only the flag ``training`` is set: a module's own ``train()`` may merge weights, unfreeze what the user froze, or
    raise.

    Yields:
        The context to call the source in. Whatever other modules run there are put into evaluation mode as well.
    """
    modes: dict[int, tuple[nn.Module, bool]] = {}

    def evaluate(module: nn.Module) -> None:
        for part in module.modules():
            # A frozen TorchScript module has no mode.
            if id(part) not in modes and hasattr(part, "training"):
                modes[id(part)] = part, part.training
                part.training = False

    try:
        if (module := source_module(source)) is not None:
            evaluate(module)
        yield on_first_run(evaluate)
    finally:
        for part, training in modes.values():
            part.training = training


def run_eagerly() -> AbstractContextManager[Any]:
    """Context in which what ``torch.compile`` compiled runs as it was written.

    To compile for other shapes and another mode could use up the number of versions that a function may have, after
    which training would not be compiled any more. Before torch 2.6 this cannot be said.
    """
    is_used = "torch._dynamo" in sys.modules  # importing it takes seconds
    return torch.compiler.set_stance("force_eager") if is_used and TORCH_2_6 else nullcontext()


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
