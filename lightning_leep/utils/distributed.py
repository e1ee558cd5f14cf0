"""Communication between processes: an error on one process becomes an error on all, so that none waits forever."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class OtherProcessError(RuntimeError):
    """Another process failed; its own error is raised there."""


def on_every_process(action: Callable[[], T], device: torch.device) -> T:
    """Run an action on every process; if it fails on one, raise on all, so that none waits forever.

    Args:
        action: A function. It may contain collectives only if they handle failing processes themselves.
        device: Device of the tensor that is reduced.

    Returns:
        The result of the action.

    Raises:
        Exception: The error of the action, on the lowest rank where it failed.
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
    raise OtherProcessError(f"Process {first} failed; see the error there.") from fault


def _first_process(failed: bool, device: torch.device) -> tuple[int | None, int]:
    """Return the lowest rank that failed, if any, and the rank of this process."""
    rank, world_size = this_process()
    if world_size == 1:
        return (0 if failed else None), 0
    first = torch.tensor(rank if failed else world_size, device=device)
    torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
    return (None if int(first) == world_size else int(first)), rank


def this_process() -> tuple[int, int]:
    """Return the rank of this process and the number of processes; 0 and 1 without a process group."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def gather_objects(value: T, device: torch.device) -> list[T]:
    """Return the values of all processes, by rank.

    Args:
        value: Value of this process; it must be picklable.
        device: Device of this process.
    """
    world_size = this_process()[1]
    if world_size == 1:
        return [value]
    gathered: list[Any] = [None] * world_size
    # NCCL communicates through the current device, which may belong to another process.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        torch.distributed.all_gather_object(gathered, value)
    return gathered
