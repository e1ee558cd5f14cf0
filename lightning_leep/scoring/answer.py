"""Features behind what the source returned, where the input of its head alone does not tell: tokens, several runs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype

#: How far a sum of outputs may be from what the source returned, relative to its largest value.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}
ROUNDING_OF_HALF = 2e-2


def rows_of_answer(value: Tensor, output: Tensor, preds: Tensor) -> Tensor | None:
    """Features ``[N, d]`` or ``[N, d, d1, ...]`` at the places where the head's output is what the source returned.

    The head was given ``value [N, ..., d]`` and returned ``output [N, ..., Z]``. None unless all ``preds`` are in that.
    """
    answer = preds.movedim(1, -1)  # [N, ..., Z]
    if value.shape[:-1] != output.shape[:-1] or not value.is_floating_point() or len(output) != len(answer):
        return None
    if output.shape == answer.shape:
        return value.movedim(-1, 1) if torch.equal(output.to(answer.dtype), answer) else None
    if answer.ndim != 2 or output.ndim < 3 or output.shape[-1] != answer.shape[-1] or not len(answer):
        return None
    tokens = output.to(answer.dtype).flatten(1, -2)  # [N, T, Z]
    same = (tokens == answer.unsqueeze(1)).all(dim=-1)  # [N, T]
    if not bool(same.any(dim=1).all()):
        return None
    # Rounding may make two tokens of a row equal: the place that all rows share is the one, if there is such a place.
    shared = same.all(dim=0, keepdim=True)  # [1, T]
    same = same & shared if bool(shared.any()) else same
    last = same.shape[1] - 1 - same.flip(1).int().argmax(dim=1)  # [N]
    return value.flatten(1, -2)[torch.arange(len(last), device=last.device), last]  # [N, d]


def rows_of_several_heads(runs: Sequence[tuple[Tensor, Tensor | None]], preds: Tensor) -> Tensor | None:
    """Features of heads whose outputs the source adds or averages, side by side: ``[N, k d]``.

    ``runs`` are what linear layers were given, ``[N, d]``, and returned. None unless ``preds [N, Z]`` is the sum or
    mean of at least two.
    """
    outputs = [output for _, output in runs if output is not None and output.shape == preds.shape]
    if len(outputs) < max(2, len(runs)) or len({value.shape for value, _ in runs}) > 1:
        return None
    total = torch.stack(outputs).to(accumulation_dtype(preds.device)).sum(dim=0)  # [N, Z]
    rounding = max(ROUNDING.get(tensor.dtype, ROUNDING_OF_HALF) for tensor in (preds, *outputs))
    largest = preds.abs().max() if preds.numel() else 0.0
    for scale in (1, len(outputs)):
        if bool(((total / scale - preds).abs() <= rounding * largest).all()):
            return torch.cat([value for value, _ in runs], dim=1)
    return None
