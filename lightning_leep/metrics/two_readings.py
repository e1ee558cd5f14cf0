"""Whether a second pass over the data had the rows of the first, told from sums of fixed size."""

import torch
from torch import Tensor

from lightning_leep.functional.joint import joint_probability

#: How far apart the sums of two readings may be, as a share of the sum of the rows' magnitudes. The last digits of a
#: source's output depend on the rows that share its batch. Other rows differ by about 1 / sqrt(rows of a class).
READING_TOLERANCE = 1e-4


def labelled_sums(rows: Tensor, target: Tensor, origin: Tensor, num_target_classes: int) -> Tensor:
    """Sums of ``rows [n, K]`` about ``origin [K]`` and number of rows of each class, ``[C, K + 1]``."""
    counts = torch.bincount(target, minlength=num_target_classes).unsqueeze(1)  # [C, 1]
    sums = joint_probability(rows, target, num_target_classes)  # [C, K]
    return torch.cat([sums - counts * origin, counts.to(sums)], dim=1)


def check_same_rows(unread: Tensor, magnitude: Tensor, rounding: Tensor) -> None:
    """Raise ``ValueError`` unless what the second pass left of the sums of the first is rounding error.

    Args:
        unread: ``[C, K + 1]``, sums of the first pass less those of the second, the numbers of rows last.
        magnitude: Sum of the magnitudes of all rows, about the origin of the sums.
        rounding: What the rounding of the rows to the dtype they come in may add up to.
    """
    missing = int(unread[:, -1].sum())
    if bool(unread[:, -1].any()):
        found = f"{abs(missing)} rows {'fewer' if missing > 0 else 'more'}" if missing else "other labels"
    else:
        gap = unread[:, :-1].abs().sum()
        if bool(gap <= READING_TOLERANCE * magnitude + rounding):
            return
        found = f"rows whose sums differ by {float(gap / magnitude):.2g} of their magnitude"
    raise ValueError(
        f"The second pass must have the rows of the first, got {found}. Random augmentations and samplers that draw "
        "with replacement give other rows each time."
    )
