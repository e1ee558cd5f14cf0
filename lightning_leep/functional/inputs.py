"""Checks and layout of inputs: source outputs ``preds``, or ``features``, beside integer labels ``target``."""

from functools import partial
from numbers import Integral

import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype

#: How far the sum of a row of probabilities may be from 1. Rounding moves it by 0.002 in bfloat16, by 1e-6 in float32.
HALF_SUM_TOLERANCE = 1e-2
SUM_TOLERANCE = 1e-3

#: Rows of probabilities whose sum is further than this from 1 are rescaled; the others are used without a copy.
RESCALE_ABOVE = 2e-6

#: Fourth powers of features are added up, so features may be as large as this power of the largest number.
LARGEST_POWER = 0.23


def check_num_classes(name: str, value: object, minimum: int = 1) -> None:
    """Raise ``ValueError`` unless ``value`` is an integer (of Python or NumPy) of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}, got {value!r}.")


def check_flag(name: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False, got {value!r}.")


def check_ignore_index(ignore_index: object) -> None:
    """Raise ``ValueError`` unless ``ignore_index`` is an integer or None."""
    if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral)):
        raise ValueError(f"`ignore_index` must be an integer or None, got {ignore_index!r}.")


def check_layout(preds: Tensor, target: Tensor, width: int | None, name: str = "preds") -> None:
    """Check types and shapes of ``preds [N, width, d1, ...]`` and ``target [N, d1, ...]``, which messages call so."""
    axis = "features" if name == "features" else "classes"
    for label, value in ((name, preds), ("target", target)):
        if not isinstance(value, Tensor):
            raise TypeError(f"`{label}` must be a torch.Tensor, got {type(value).__name__}.")
    if not preds.is_floating_point():
        raise TypeError(f"`{name}` must be floating point, got {preds.dtype}.")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"`target` must hold integer class labels, got {target.dtype}.")
    if preds.ndim < 2:
        raise ValueError(f"`{name}` must have shape [N, {axis}] or [N, {axis}, d1, ...], got {list(preds.shape)}.")
    if preds.shape[1] == 0:
        raise ValueError(f"`{name}` must have at least 1 of the {axis} in dimension 1, got shape {list(preds.shape)}.")
    wanted = [preds.shape[0], *preds.shape[2:]]
    if list(target.shape) != wanted:
        is_map = name == "features" and target.shape == preds.shape[:1]
        pooled = f" For one label a row, average the features over space: `features.mean({(*range(2, preds.ndim),)})`."
        raise ValueError(
            f"`target` must have shape {wanted} to go with `{name}` of shape {list(preds.shape)}, "
            f"got {list(target.shape)}.{pooled if is_map else ''}"
        )
    if width is not None and preds.shape[1] != width:
        raise ValueError(f"`{name}` must have {width} {axis} in dimension 1, got shape {list(preds.shape)}.")


def check_labels(target: Tensor, num_target_classes: int) -> None:
    """Raise ``ValueError`` for a label outside ``0 .. num_target_classes - 1``; ignored labels are already dropped."""
    if target.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(target))
    if low < 0 or high >= num_target_classes:
        wrong = low if low < 0 else high
        remedy = "Pass" if low < 0 else "Pass a larger `num_target_classes`, or"
        raise ValueError(
            f"`target` must hold labels in 0..{num_target_classes - 1} (`num_target_classes`={num_target_classes}), "
            f"got {wrong}. {remedy} `ignore_index={wrong}` to leave its rows out."
        )


def flatten_rows(preds: Tensor, target: Tensor, ignore_index: int | None = None) -> tuple[Tensor, Tensor]:
    """Bring ``preds [N, K, d1, ...]`` and ``target [N, d1, ...]`` to ``[n, K]`` and ``[n]`` without ignored rows."""
    preds = preds.detach()
    if preds.ndim > 2:
        preds = preds.movedim(1, -1).reshape(-1, preds.shape[1])  # [N, K, d1, ...] -> [N * d1 * ..., K]
    # Long before the comparison: uint8 labels would equal `ignore_index` modulo 256.
    target = target.detach().reshape(-1).long()  # [N, d1, ...] -> [N * d1 * ...]
    if ignore_index is not None:
        keep = target != ignore_index
        if not bool(keep.all()):
            preds, target = preds[keep], target[keep]  # [n, K], [n]
    return preds, target


def labelled_rows(
    preds: Tensor,
    target: Tensor,
    num_target_classes: int,
    width: int | None = None,
    ignore_index: int | None = None,
    *,
    validate_args: bool = True,
    two_for: str = "",
    name: str = "preds",
) -> tuple[Tensor, Tensor]:
    """Rows ``[n, K]`` and labels ``[n]`` of a batch that passes the checks above, without ignored rows.

    ``validate_args`` says whether values are checked, ``two_for`` names a score that needs at least 2 rows.
    """
    check_num_classes("num_target_classes", num_target_classes)
    check_ignore_index(ignore_index)
    check_layout(preds, target, width, name)
    rows, labels = flatten_rows(preds, target, ignore_index)  # [n, K], [n]
    if validate_args:
        check_labels(labels, num_target_classes)
    if two_for and rows.shape[0] < 2:
        raise ValueError(f"{two_for} needs at least 2 labelled rows in `{name}`, got {rows.shape[0]}.")
    if validate_args and name == "features" and rows.shape[0]:
        low, high = torch.aminmax(rows)  # NaN if one is NaN; makes no copy of the rows
        largest = largest_feature(rows.device)
        if not float(torch.maximum(-low, high)) <= largest:  # the limit may be infinite in the dtype of the rows
            raise ValueError(f"`features` must be finite and up to {largest:.0e}, got NaN, infinite or larger values.")
    return rows, labels


#: The same for features ``[N, d, d1, ...]``, which must not be NaN, infinite or too large for their fourth power.
feature_rows = partial(labelled_rows, name="features")


def largest_feature(device: torch.device) -> float:
    """Return the magnitude up to which the fourth powers of features add up without overflow."""
    return float(torch.finfo(accumulation_dtype(device)).max ** LARGEST_POWER)


def probability_rows(preds: Tensor, from_logits: bool, validate_args: bool = True) -> Tensor:
    """Source distributions ``theta [n, Z]`` in float32, or in float64 for float64 input, from logits or probabilities.

    A logit of -inf switches its source class off. Rows of probabilities that sum to 1 within float32 rounding are used
    as they are; others are rescaled. ``ValueError`` for NaN, +inf, a row of -inf alone, or what is no probability.
    """
    half = preds.dtype.itemsize < 4
    preds = preds.detach()
    if preds.shape[0] == 0:
        return preds.float() if half else preds
    if from_logits:
        rows = preds.softmax(dim=1, dtype=torch.float32 if half else preds.dtype)
        if validate_args and not bool(rows.sum().isfinite()):
            raise ValueError("`preds` must hold finite logits (-inf aside), got NaN, +inf or a row of -inf alone.")
        return rows
    rows = preds.float() if half else preds
    sums = rows.sum(dim=1)  # [n]
    if not validate_args:
        return rows / sums.unsqueeze(1) if half else rows
    # NaN fails every comparison, so each check is "not (what must hold)".
    if not bool(rows.amin() >= 0):
        raise ValueError(
            "`preds` must hold probabilities >= 0 because `from_logits=False`, got a negative value or NaN. "
            "Pass `from_logits=True` for raw outputs of a classifier."
        )
    deviations = (sums - 1).abs()  # [n]
    deviation = float(deviations.max())
    if not deviation <= (HALF_SUM_TOLERANCE if half else SUM_TOLERANCE):
        raise ValueError(
            "`preds` must hold rows of probabilities that sum to 1 because `from_logits=False`, got a row whose sum "
            f"is {deviation:.3g} away from 1. Pass `from_logits=True` for raw outputs of a classifier."
        )
    if deviation <= RESCALE_ABOVE:
        return rows
    # Row by row, so that a row does not depend on the batch that it came in.
    divisor = torch.where(deviations > RESCALE_ABOVE, sums, 1.0).unsqueeze(1)  # [n, 1]
    return rows / divisor
