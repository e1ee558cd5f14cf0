"""The number of target classes, found from the labels of a pass when nobody states it."""

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_leep.scoring.options import ScoringOptions
from lightning_leep.scoring.outputs import check_target
from lightning_leep.scoring.source import Outputs

#: Largest number of classes that labels alone may show: a joint of 10,000 by 1,000 takes 80 MB.
MAX_FOUND_CLASSES = 10_000


def count_classes(targets: Iterable[Tensor], ignore_index: int | None) -> int:
    """Return the number of classes in the labels of a pass: the largest one plus 1, or 0 without any."""
    largest = -1
    for target in targets:
        check_target(target)
        if ignore_index is not None:
            target = target[target != ignore_index]
        largest = max(largest, int(target.max()) if target.numel() else -1)
        if largest >= MAX_FOUND_CLASSES:
            raise ValueError(
                f"Labels up to {largest} are too large to find the number of classes from them. Pass "
                "`num_target_classes=`, and `ignore_index=` for a label to be left out."
            )
    return largest + 1


def keep_batches(batches: Iterable[Outputs], options: ScoringOptions) -> tuple[Iterator[Outputs], int]:
    """Read all batches, and return them and the number of classes in them, the largest label plus 1."""
    kept: deque[Outputs] = deque()

    def targets() -> Iterator[Tensor]:
        for batch in batches:
            kept.append(moved(batch, torch.device("cpu")) if options.memory == "cpu" else batch)
            yield batch.target

    found = count_classes(targets(), options.ignore_index)
    return (kept.popleft() for _ in range(len(kept))), found


def moved(batch: Outputs, device: torch.device) -> Outputs:
    """The batch on another device."""
    found: Outputs = apply_to_collection(batch, Tensor, lambda tensor: tensor.to(device))
    return found
