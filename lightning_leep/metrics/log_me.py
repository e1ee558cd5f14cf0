"""LogME as a streaming, distributed metric."""

from torch import Tensor

from lightning_leep.functional.log_me import log_me_of_space
from lightning_leep.metrics.feature_metric import FeatureMetric


class LogME(FeatureMetric):
    """Logarithm of the maximum evidence, per row, of linear models from features to each class.

    It is :func:`lightning_leep.functional.log_me.log_me`, where the formula and its source are, computed exactly from
    moments of fixed size. Higher is better. It is a density, so it may be positive, and compares sources on one target,
    not targets. ``compute`` returns a 0-d float64 tensor; NaN, with a warning, for fewer than two rows. In a
    ``MetricCollection`` it shares its state with :class:`HScore`.

    The arguments are those of the function, ``num_features`` d, ``validate_args``, whether to check labels and features
    of each batch (types and shapes are always checked), and keyword arguments of :class:`torchmetrics.Metric`;
    ``ValueError`` if one is impossible.

    Example:
        >>> import torch
        >>> metric = LogME(num_target_classes=2, num_features=2)
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.2, 0.0], [0.1, 0.9]]), torch.tensor([0, 0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.5], [1.2, 0.6]]), torch.tensor([1, 1]))
        >>> round(metric.compute().item(), 4)
        -0.666
    """

    def compute(self) -> Tensor:
        """LogME of all rows seen so far, on all processes: 0-d, in nats per row; NaN for fewer than two rows."""
        return self.score(log_me_of_space)
