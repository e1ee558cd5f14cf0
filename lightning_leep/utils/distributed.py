"""A fault on one process becomes a fault on all of them, so that none waits for the others in vain."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class OtherProcessError(RuntimeError):
    """The fault is another process's, and its own error is raised there."""


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
    rank, world_size = this_process()
    if world_size == 1:
        return (0 if failed else None), 0
    first = torch.tensor(rank if failed else world_size, device=device)
    torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
    return (None if int(first) == world_size else int(first)), rank


def this_process() -> tuple[int, int]:
    """Rank of this process and number of processes; 0 of 1 without an initialised group."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def gather_objects(value: T, device: torch.device) -> list[T]:
    """The values of all processes, by rank; they must be picklable.

    Args:
        value: This process's own.
        device: This process's own, for the communication.
    """
    world_size = this_process()[1]
    if world_size == 1:
        return [value]
    gathered: list[Any] = [None] * world_size
    # NCCL sends by way of the current device, which may be another process's.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        torch.distributed.all_gather_object(gathered, value)
    return gathered
