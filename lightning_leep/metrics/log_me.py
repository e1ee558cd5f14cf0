"""LogME as a streaming, distributed metric."""

from torch import Tensor

from lightning_leep.functional.log_me import log_me_from_moments
from lightning_leep.metrics.additive import nan_for_too_few_rows
from lightning_leep.metrics.feature_metric import FeatureMetric


class LogME(FeatureMetric):
    r"""Logarithm of the maximum evidence, per row, of linear models from features to each class.

    .. math::
        \text{LogME} = \frac{1}{|\{k: n_k > 0\}|} \sum_k \max_{\alpha, \beta} \frac1n
            \log N\big(y^{(k)}; 0,\ \beta^{-1} I + \alpha^{-1} F F^\top\big)

    as in :func:`lightning_leep.functional.log_me.log_me`, exactly, from moments of fixed size. Higher is better. It is
    a density, so it may be positive, and compares sources on one target, not targets.

    Source: You, Liu, Wang, Long, ICML 2021 (arXiv:2102.11005).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``features``: ``[N, d]`` or ``[N, d, d1, ...]``, floating point of any precision.
    - ``target``: ``[N]`` or ``[N, d1, ...]``, integer labels in ``0 .. C-1``.

    ``compute`` returns a 0-d float64 tensor; NaN, with a warning, for fewer than two rows.

    In a ``MetricCollection`` it shares its state with :class:`HScore`.

    Args:
        num_target_classes: C; classes without an image are allowed and left out of the mean.
        num_features: d.
        ignore_index: Label of the rows that are left out.
        validate_args: Whether to check the values of each batch; types and shapes are always checked.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If a number is not a positive integer, ``ignore_index`` is not an integer or a flag is not a bool.

    Example:
        >>> import torch
        >>> from lightning_leep.metrics.log_me import LogME
        >>> metric = LogME(num_target_classes=2, num_features=2)
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.2, 0.0], [0.1, 0.9]]), torch.tensor([0, 0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.5], [1.2, 0.6]]), torch.tensor([1, 1]))
        >>> round(metric.compute().item(), 4)
        -0.666
    """

    def compute(self) -> Tensor:
        """LogME of all rows seen so far, on all processes: 0-d, in nats per row; NaN for fewer than two rows."""
        num_rows = int(self.moments.num_rows)
        if num_rows < 2:
            return nan_for_too_few_rows(self, num_rows)
        return log_me_from_moments(self.moments)
