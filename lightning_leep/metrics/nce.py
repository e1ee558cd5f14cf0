"""NCE as a streaming, distributed metric."""

from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.inputs import (
    check_flag,
    check_ignore_index,
    check_labels,
    check_layout,
    check_num_classes,
    flatten_rows,
)
from lightning_leep.functional.nce import check_decisions, decision_counts, nce_from_counts
from lightning_leep.metrics.additive import AdditiveMetric
from lightning_leep.metrics.too_few import nan_for_too_few_rows


class NegativeConditionalEntropy(AdditiveMetric):
    r"""Negative conditional entropy of the target labels given the source's most probable classes.

    .. math::
        \text{NCE} = -H(Y|Z) = \frac{1}{n} \sum_{y, z} N(y, z) \log \frac{N(y, z)}{\sum_{y'} N(y', z)}, \qquad
        z_i = \arg\max_z \theta_i(z)

    with N(y, z) the number of images of target class y that the source gives to its class z. At most 0, at least
    minus the entropy of the labels; higher is better, in nats.

    Source: Tran, Nguyen, Hassner, ICCV 2019 (arXiv:1908.08142).

    As input to ``forward`` and ``update`` the metric accepts:

    - ``preds``: ``[N, Z]`` or ``[N, Z, d1, ...]`` (dense prediction), floating point of any precision.
    - ``target``: ``[N]`` or ``[N, d1, ...]``, integer labels in ``0 .. C-1``.

    ``compute`` returns a 0-d float64 tensor; NaN, with a warning, for fewer than two rows. The state, all that crosses
    between processes, is ``8 C Z`` bytes, whatever the number of rows.

    Args:
        num_target_classes: C; classes without an image are allowed.
        num_source_classes: Z.
        from_logits: Whether ``preds`` are logits or probabilities: which of the two they are checked to be.
        ignore_index: Label of the rows that are left out.
        validate_args: Whether to check the values of each batch; types and shapes are always checked.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If a number of classes is not a positive integer or ``ignore_index`` is no integer.

    Example:
        >>> import torch
        >>> from lightning_leep.metrics.nce import NegativeConditionalEntropy
        >>> metric = NegativeConditionalEntropy(num_target_classes=2, num_source_classes=2)
        >>> metric.update(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[3.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 1]))
        >>> round(metric.compute().item(), 4)
        -0.4774
    """

    plot_upper_bound: float = 0.0
    pooled_states = ("counts",)

    counts: Tensor

    def __init__(
        self,
        num_target_classes: int,
        num_source_classes: int,
        from_logits: bool = True,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        check_num_classes("num_target_classes", num_target_classes)
        check_num_classes("num_source_classes", num_source_classes)
        check_ignore_index(ignore_index)
        check_flag("from_logits", from_logits)
        super().__init__(**kwargs)
        self.num_target_classes = num_target_classes
        self.num_source_classes = num_source_classes
        self.from_logits = from_logits
        self.ignore_index = ignore_index
        self.validate_args = validate_args
        shape = (num_target_classes, num_source_classes)
        self.add_state("counts", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_settings(ignore_index)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: ``[N, Z]`` or ``[N, Z, d1, ...]`` source outputs.
            target: ``[N]`` or ``[N, d1, ...]`` integer labels.

        Raises:
            TypeError: If ``preds`` is not floating point or ``target`` is not integer.
            ValueError: If shapes, labels or, with ``validate_args``, values are invalid. The state is as before.
        """
        check_layout(preds, target, self.num_source_classes)
        rows, labels = flatten_rows(preds, target, self.ignore_index)  # [n, Z], [n]
        if self.validate_args:
            check_labels(labels, self.num_target_classes)
            check_decisions(rows, self.from_logits)
        self.counts = self.counts + decision_counts(rows, labels, self.num_target_classes)  # [C, Z]

    def compute(self) -> Tensor:
        """NCE of all rows seen so far, on all processes."""
        num_rows = int(self.counts.sum())
        if num_rows < 2:
            return nan_for_too_few_rows(self, num_rows)
        return nce_from_counts(self.counts)
