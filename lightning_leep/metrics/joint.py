"""State shared by the metrics that score rows with the expected empirical predictor (EEP)."""

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
    probability_rows,
)
from lightning_leep.functional.joint import joint_probability
from lightning_leep.metrics.row_metric import RowMetric


class JointMetric(RowMetric):
    """Joint of target labels and source classes, and the rows it was summed from.

    Metrics with this base and the same constructor arguments form one compute group in a ``MetricCollection``.

    Args:
        num_target_classes: C.
        num_source_classes: Z.
        from_logits: Whether ``preds`` are logits or probabilities.
        ignore_index: Label of the rows that are left out.
        validate_args: Whether to check the values of each batch; types and shapes are always checked.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If a number of classes is not a positive integer, ``ignore_index`` no integer or a flag no bool.
    """

    pooled_states = ("joint", "class_counts")

    joint: Tensor
    class_counts: Tensor

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
        check_flag("validate_args", validate_args)
        super().__init__(**kwargs)
        self.num_target_classes = num_target_classes
        self.num_source_classes = num_source_classes
        self.from_logits = from_logits
        self.ignore_index = ignore_index
        self.validate_args = validate_args
        shape = (num_target_classes, num_source_classes)
        self.add_state("joint", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("class_counts", torch.zeros(num_target_classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_settings(from_logits, ignore_index)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: ``[N, Z]`` or ``[N, Z, d1, ...]`` source outputs.
            target: ``[N]`` or ``[N, d1, ...]`` integer labels.

        Raises:
            TypeError: If ``preds`` is not floating point or ``target`` is not integer.
            ValueError: If shapes, labels or, with ``validate_args``, values are invalid. The state is as before.
        """
        probs, labels = self.prepare(preds, target)  # [n, Z], [n]
        joint = self.joint + joint_probability(probs, labels, self.num_target_classes)  # [C, Z]
        class_counts = self.class_counts + torch.bincount(labels, minlength=self.num_target_classes)  # [C]
        self.keep(probs, labels)
        self.joint, self.class_counts = joint, class_counts

    def prepare(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Check a batch and bring it to source distributions ``[m, Z]`` and labels ``[m]``."""
        check_layout(preds, target, self.num_source_classes)
        rows, labels = flatten_rows(preds, target, self.ignore_index)  # [m, Z], [m]
        if self.validate_args:
            check_labels(labels, self.num_target_classes)
        return probability_rows(rows, self.from_logits, self.validate_args), labels
