"""LEEP as a streaming, distributed metric."""

import torch
from torch import Tensor

from lightning_leep.functional.joint import conditional_probability, eep_likelihood
from lightning_leep.metrics.joint import JointMetric
from lightning_leep.metrics.row_metric import RowScorer


class LEEPMetric(JointMetric):
    r"""Log expected empirical prediction of a source classifier on labelled target data.

    .. math::
        \text{LEEP} = \frac{1}{n} \sum_{i=1}^n \log \sum_z P(y_i|z) \, \theta_i(z), \qquad
        P(y|z) = \frac{\sum_{i: y_i = y} \theta_i(z)}{\sum_i \theta_i(z)}

    with :math:`\theta_i` the source's distribution over its Z classes for target image i. At most 0, higher is better,
    in nats. A source that says nothing about the labels scores minus their entropy.

    Source: Nguyen, Hassner, Seeger, Archambeau, ICML 2020 (arXiv:2002.12462), section 3, equations 1 and 2.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``preds``: ``[N, Z]`` or ``[N, Z, d1, ...]`` (dense prediction), floating point of any precision.
    - ``target``: ``[N]`` or ``[N, d1, ...]``, integer labels in ``0 .. C-1``.

    ``compute`` returns a 0-d float64 tensor; NaN, with a warning, for fewer than two rows.

    The rows are kept (references to them if they are float32 probabilities: do not overwrite those), ``4 n Z`` bytes
    on the process that saw them. Across processes travel ``8 C Z`` bytes and a few numbers, whatever n.

    Args:
        num_target_classes: C; classes without an image are allowed.
        num_source_classes: Z.
        from_logits: Whether ``preds`` are logits (a softmax is applied, in float32 or better) or probabilities.
        ignore_index: Label of the rows that are left out.
        validate_args: Whether to check the values of each batch; types and shapes are always checked.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If a number of classes is not a positive integer or ``ignore_index`` is no integer.

    Example:
        >>> import torch
        >>> from lightning_leep import LEEPMetric
        >>> metric = LEEPMetric(num_target_classes=2, num_source_classes=2, from_logits=False)
        >>> metric.update(torch.tensor([[0.8, 0.2], [0.7, 0.3]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[0.1, 0.9], [0.2, 0.8]]), torch.tensor([1, 1]))
        >>> round(metric.compute().item(), 4)
        -0.384
    """

    plot_upper_bound: float = 0.0

    def row_scorer(self, device: torch.device) -> RowScorer:
        """Score of a row: the logarithm of the probability that the EEP gives to its label."""
        conditional = conditional_probability(self.joint).to(device)  # [C, Z]
        return lambda probs, target: eep_likelihood(probs, target, conditional).log().unsqueeze(1)  # [m, 1]

    def compute(self) -> Tensor:
        """LEEP of all rows seen so far, on all processes."""
        mean, _ = self.mean_and_standard_error()
        return mean[0].clamp(max=0.0)  # a perfect source may end a rounding error above 0
