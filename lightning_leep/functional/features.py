"""Checks and layout of feature inputs: ``features`` and integer labels ``target``."""

import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype
from lightning_leep.functional.inputs import (
    check_ignore_index,
    check_labels,
    check_layout,
    check_num_classes,
    flatten_rows,
)

#: Fourth powers of features are added up, so features may be as large as this power of the largest number.
LARGEST_POWER = 0.23


def check_features(
    features: Tensor,
    target: Tensor,
    num_target_classes: int,
    num_features: int | None = None,
    ignore_index: int | None = None,
) -> None:
    """Check types and shapes of ``features [N, d, d1, ...]`` and ``target [N, d1, ...]``, never their values.

    Args:
        features: Floating-point features; dimension 1 holds the d features of a row.
        target: Integer class labels, one for each row.
        num_target_classes: C.
        num_features: d; None accepts any d of at least 1.
        ignore_index: Label of the rows that are left out.

    Raises:
        TypeError: If one is not a tensor, ``features`` is not floating point or ``target`` is not integer.
        ValueError: If the shapes do not fit each other or ``num_features``, or a number is out of its range.
    """
    check_num_classes("num_target_classes", num_target_classes)
    check_ignore_index(ignore_index)
    check_layout(features, target, num_features, name="features", axis="features")


def flatten_features(
    features: Tensor,
    target: Tensor,
    num_target_classes: int,
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> tuple[Tensor, Tensor]:
    """Bring checked features and labels to ``[n, d]`` and ``[n]``, drop ignored rows and check the values.

    Raises:
        ValueError: If a label is outside ``0 .. num_target_classes - 1``, or a feature is NaN, infinite or so large
            that its fourth power overflows.
    """
    rows, labels = flatten_rows(features, target, ignore_index)  # [n, d], [n]
    if validate_args:
        check_labels(labels, num_target_classes)
        if rows.shape[0]:
            low, high = torch.aminmax(rows)  # NaN if one is NaN; makes no copy of the rows
            largest = largest_feature(rows.device)
            if not float(torch.maximum(-low, high)) <= largest:  # the limit may be infinite in the dtype of the rows
                raise ValueError(
                    f"`features` must be finite and up to {largest:.0e}, got NaN, infinite or larger values."
                )
    return rows, labels


def largest_feature(device: torch.device) -> float:
    """Return the magnitude up to which the fourth powers of features add up without overflow."""
    return float(torch.finfo(accumulation_dtype(device)).max ** LARGEST_POWER)
