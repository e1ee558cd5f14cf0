"""What a fault does: one warning and training goes on, or an error; the same on every process."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from lightning_leep.scoring import OtherProcessError

T = TypeVar("T")


class FaultBarrier:
    """Turns faults into warnings, one for each task, unless it is strict.

    Args:
        strict: Whether faults are raised instead.
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self._warned: set[str] = set()

    def reset(self) -> None:
        """Warn of every task again."""
        self._warned.clear()

    @contextmanager
    def contain(self, task: str, advice: str, strict: bool | None = None) -> Iterator[None]:
        """Warn of an ``Exception`` within the context and go on after it; ``KeyboardInterrupt`` and its like pass.

        Args:
            task: What was tried, as it ends "LEEPCallback could not".
            advice: What the user can do about it, a sentence.
            strict: Overrides the barrier's own strictness.
        """
        try:
            yield
        except Exception as error:
            if self.strict if strict is None else strict:
                raise
            if not isinstance(error, OtherProcessError):  # the process where it happened warns
                self.warn(task, f"LEEPCallback could not {task}: {_described(error)} {advice} Training goes on.")

    def warn(self, task: str, message: str) -> None:
        """Warn once of a task, on this process."""
        if task not in self._warned:
            self._warned.add(task)
            warnings.warn(message, UserWarning, stacklevel=3)


def on_every_process(action: Callable[[], T], device: torch.device) -> T:
    """Run an action; if it fails on one process, raise on all of them, so that none waits for the others in vain.

    Args:
        action: Contains collectives only if these cope with failing processes themselves.
        device: Of the tensor that is reduced.

    Returns:
        The action's result.

    Raises:
        Exception: The action's own, on the first process that it failed on.
        OtherProcessError: On the other processes.
    """
    fault: Exception | None = None
    try:
        result = action()
    except Exception as error:
        fault = error
    own_fault = fault is not None and not isinstance(fault, OtherProcessError)
    first, rank = _first_process(own_fault, device)
    if first is None:
        if fault is not None:
            raise fault
        return result
    if own_fault and first == rank:
        raise fault  # type: ignore[misc]
    raise OtherProcessError(f"It failed on process {first}; the message there says why.") from fault


def _first_process(failed: bool, device: torch.device) -> tuple[int | None, int]:
    """Lowest rank that failed, if any, and this process's own rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return (0 if failed else None), 0
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    first = torch.tensor(rank if failed else world_size, device=device)
    torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
    return (None if int(first) == world_size else int(first)), rank


def _described(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
