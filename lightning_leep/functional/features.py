"""Checks and layout of feature inputs: ``features`` and integer labels ``target``."""

from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype
from lightning_leep.functional.inputs import labelled_rows

#: Fourth powers of features are added up, so features may be as large as this power of the largest number.
LARGEST_POWER = 0.23


def feature_rows(
    features: Tensor,
    target: Tensor,
    num_target_classes: int,
    num_features: int | None = None,
    ignore_index: int | None = None,
    *,
    validate_args: bool = True,
    two_for: str = "",
) -> tuple[Tensor, Tensor]:
    """Features ``[n, d]`` and labels ``[n]`` of a batch, as :func:`~lightning_leep.functional.inputs.labelled_rows`.

    Raises:
        TypeError: If ``features`` is not floating point or ``target`` is not integer.
        ValueError: If shapes or labels are invalid, or a feature is NaN, infinite or so large that its fourth power
            overflows.
    """
    checks: dict[str, Any] = {
        "validate_args": validate_args,
        "two_for": two_for,
        "name": "features",
        "axis": "features",
    }
    rows, labels = labelled_rows(features, target, num_target_classes, num_features, ignore_index, **checks)
    if validate_args and rows.shape[0]:
        low, high = torch.aminmax(rows)  # NaN if one is NaN; makes no copy of the rows
        largest = largest_feature(rows.device)
        if not float(torch.maximum(-low, high)) <= largest:  # the limit may be infinite in the dtype of the rows
            raise ValueError(f"`features` must be finite and up to {largest:.0e}, got NaN, infinite or larger values.")
    return rows, labels


def largest_feature(device: torch.device) -> float:
    """Return the magnitude up to which the fourth powers of features add up without overflow."""
    return float(torch.finfo(accumulation_dtype(device)).max ** LARGEST_POWER)
