"""H-score as a streaming, distributed metric."""

from typing import Any

from torch import Tensor

from lightning_leep.functional.h_score import h_score_of_space
from lightning_leep.functional.inputs import check_flag
from lightning_leep.metrics.feature_metric import FeatureMetric


class HScore(FeatureMetric):
    """H-score of features: their variance between classes, measured in units of their total variance.

    It is :func:`lightning_leep.functional.h_score.h_score`, where the formula and its source are, computed exactly from
    moments of fixed size. At least 0, at most the number of classes minus one. Higher is better. ``compute`` returns a
    0-d float64 tensor; NaN, with a warning, for fewer than two rows. In a ``MetricCollection`` it shares its state with
    :class:`LogME` and with H-scores of the other ``shrinkage``.

    The arguments are those of the function, ``num_features`` d, ``validate_args``, whether to check labels and features
    of each batch (types and shapes are always checked), and keyword arguments of :class:`torchmetrics.Metric`;
    ``ValueError`` if one is impossible.

    Example:
        >>> import torch
        >>> metric = HScore(num_target_classes=2, num_features=2, shrinkage=False)
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.2, 0.0]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.5], [1.2, 0.6]]), torch.tensor([1, 1]))
        >>> round(metric.compute().item(), 4)
        0.977
    """

    plot_lower_bound: float = 0.0

    def __init__(
        self,
        num_target_classes: int,
        num_features: int,
        shrinkage: bool = True,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        check_flag("shrinkage", shrinkage)
        self.shrinkage = shrinkage
        super().__init__(num_target_classes, num_features, ignore_index, validate_args, **kwargs)

    def compute(self) -> Tensor:
        """H-score of all rows seen so far, on all processes: 0-d, without a unit, at least 0; NaN for too few rows."""
        return self.score(lambda space: h_score_of_space(space, self.shrinkage))
