"""The number of target classes, found from the labels of a pass when nobody states it."""

from collections.abc import Iterable

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_leep.scoring.options import ScoringOptions
from lightning_leep.scoring.source import Outputs

#: Largest number of classes that labels alone may show: a joint of 10,000 by 1,000 takes 80 MB.
MAX_FOUND_CLASSES = 10_000


def keep_batches(batches: Iterable[Outputs], options: ScoringOptions) -> tuple[list[Outputs], int]:
    """Read all batches, and return them and the number of classes in them, the largest label plus 1.

    Raises:
        ValueError: If a label is larger than class indices usually are.
    """
    kept, largest = [], -1
    for batch in batches:
        target = batch[2].long()
        if options.ignore_index is not None:
            target = target[target != options.ignore_index]
        largest = max(largest, int(target.max()) if target.numel() else -1)
        if largest >= MAX_FOUND_CLASSES:
            raise ValueError(
                f"Labels up to {largest} are too large to find the number of classes from them. Pass "
                "`num_target_classes=`, and `ignore_index=` for a label to be left out."
            )
        kept.append(moved(batch, torch.device("cpu")) if options.memory == "cpu" else batch)
    return kept, largest + 1


def moved(batch: Outputs, device: torch.device) -> Outputs:
    """The batch on another device."""
    found: Outputs = apply_to_collection(batch, Tensor, lambda tensor: tensor.to(device))
    return found
