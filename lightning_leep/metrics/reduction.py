"""Sums over processes, for metrics whose states are pooled by addition alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors


def sum_reducer(dist_sync_fn: Callable[..., Any], process_group: Any | None) -> Callable[[Tensor], Tensor]:
    """Return the function that sums a tensor over the processes of ``process_group`` and leaves its argument as it was.

    torchmetrics' default gather is replaced by an ``all_reduce``: its traffic is one tensor a process, not one
    tensor of every process. A gather that the user supplied is called, and its result summed.
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
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return lambda value: value
    reduce = sum_reducer(gather_all_tensors, None)
    return lambda value: reduce(value.to(device)).to(value.device)
