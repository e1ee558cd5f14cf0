"""Moving a batch to a device, whichever Lightning is installed, or none."""

from typing import Any, Protocol, runtime_checkable

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

#: Devices where a copy that does not wait may be read before it is complete.
BLOCKING = ("cpu", "mps")


@runtime_checkable
class Movable(Protocol):
    """Any object with a method ``to``."""

    def to(self, device: torch.device) -> Any:
        """Move it to a device."""


def move_to_device(batch: Any, device: torch.device) -> Any:
    """Move all tensors of a batch, and all objects with a method ``to(device)``, to a device; the rest stays as it is.

    A batch is a tensor, or a collection of any depth: mappings, sequences, named tuples, dataclasses.
    """

    def move(item: Any) -> Any:
        wait = not isinstance(item, Tensor) or device.type in BLOCKING
        moved = item.to(device) if wait else item.to(device, non_blocking=True)
        return item if moved is None else moved  # a `to` that changes the object and returns nothing

    return apply_to_collection(batch, Movable, move)
