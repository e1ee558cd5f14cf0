"""What a metric answers when it has seen too few rows to say anything."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from lightning_leep.functional.joint import accumulation_dtype


def nan_for_too_few_rows(metric: Metric, num_rows: int, minimum: int = 2) -> Tensor:
    """0-d NaN, with a warning that names the metric: a loop over batches must not end at a small one."""
    rank_zero_warn(
        f"{type(metric).__name__} needs at least {minimum} rows to say anything, got {num_rows}; it returns NaN.",
        UserWarning,
    )
    return torch.full((), torch.nan, dtype=accumulation_dtype(metric.device), device=metric.device)
