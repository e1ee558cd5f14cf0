"""What processes share: sums, objects, and the failure of any of them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

T = TypeVar("T")


class OtherProcessError(RuntimeError):
    """Another process failed; its own error is raised there."""


def on_every_process(action: Callable[[], T], device: torch.device) -> T:
    """Run an action on every process; if it fails on one, raise on all, so that none waits forever.

    The error is raised on the lowest rank where the action failed, ``OtherProcessError`` on the others. The processes
    meet on ``device``. The action may contain collectives only if they handle failing processes themselves.
    """
    fault: Exception | None = None
    try:
        result = action()
    except Exception as error:
        fault = error
    own_fault = fault is not None and not isinstance(fault, OtherProcessError)
    rank, world_size = this_process()
    first = rank if own_fault else world_size  # that failed
    if world_size > 1:
        lowest = torch.tensor(first, device=device)
        torch.distributed.all_reduce(lowest, op=torch.distributed.ReduceOp.MIN)
        first = int(lowest)
    if first == world_size:
        if fault is not None:
            raise fault
        return result
    if own_fault and first == rank:
        raise fault  # type: ignore[misc]
    raise OtherProcessError(f"Process {first} failed; see the error there.") from fault


def this_process() -> tuple[int, int]:
    """Return the rank of this process and the number of processes; 0 and 1 without a process group."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def gather_objects(value: T, device: torch.device) -> list[T]:
    """Return the values of all processes, by rank; they must be picklable. ``device`` is that of this process."""
    world_size = this_process()[1]
    if world_size == 1:
        return [value]
    gathered: list[Any] = [None] * world_size
    # NCCL communicates through the current device, which may belong to another process.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        torch.distributed.all_gather_object(gathered, value)
    return gathered


def gather_rows(
    values: Sequence[Tensor], gather: Callable[[Tensor], list[Tensor]], device: torch.device
) -> list[Tensor]:
    """Rows ``[n, ...]`` of all processes, joined in the order of their ranks, where they were before.

    ``values`` have one number of rows here, maybe another on each process. ``gather`` returns the tensors of all
    processes for a tensor on ``device``; it needs one shape.
    """
    counts = [int(count) for count in gather(torch.tensor([len(values[0])], device=device))]
    gathered = []
    for value in values:
        padding = value.new_zeros(max(counts) - len(value), *value.shape[1:])
        parts = gather(torch.cat([value, padding]).to(device))
        rows = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
        gathered.append(rows.to(value.device))
    return gathered


def sum_reducer(dist_sync_fn: Callable[..., Any], process_group: Any | None) -> Callable[[Tensor], Tensor]:
    """Return the function that sums a tensor over the processes of ``process_group`` and leaves its argument as it was.

    torchmetrics' default gather gives way to ``all_reduce``, which sends less; that of a user is called and summed.
    """

    def all_reduce(value: Tensor) -> Tensor:
        total = value.detach().clone()
        torch.distributed.all_reduce(total, group=process_group)
        return total

    def gather_and_sum(value: Tensor) -> Tensor:
        gathered: list[Tensor] = dist_sync_fn(value, group=process_group)
        return torch.stack(gathered).sum(dim=0).to(value.dtype)

    return all_reduce if dist_sync_fn is gather_all_tensors else gather_and_sum


def sum_over_processes(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function that sums a tensor over all processes, by way of ``device``; the identity on a single one."""
    if this_process()[1] == 1:
        return lambda value: value
    reduce = sum_reducer(gather_all_tensors, None)
    return lambda value: reduce(value.to(device)).to(value.device)
