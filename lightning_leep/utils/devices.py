"""Moving a batch to a device, whichever Lightning is installed, or none."""

from typing import Any, Protocol, runtime_checkable

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor


@runtime_checkable
class Movable(Protocol):
    """Any object with a method ``to``."""

    def to(self, device: torch.device) -> Any:
        """Move it to a device."""


def move_to_device(batch: Any, device: torch.device) -> Any:
    """Move all tensors in a collection of any depth, and all objects with a method ``to(device)``, to a device."""

    def move(item: Any) -> Any:
        # On other devices a copy that does not wait may be read before it is complete.
        options = {"non_blocking": True} if isinstance(item, Tensor) and device.type == "cuda" else {}
        moved = item.to(device, **options)
        return item if moved is None else moved  # a `to` that changes the object and returns nothing

    return apply_to_collection(batch, Movable, move)
