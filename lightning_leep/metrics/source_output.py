"""Arguments and layout shared by the metrics that take the outputs of a source classifier."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from lightning_leep.functional.inputs import (
    check_flag,
    check_ignore_index,
    check_labels,
    check_layout,
    check_num_classes,
    flatten_rows,
)
from lightning_leep.metrics.additive import AdditiveMetric


class SourceOutputMetric(AdditiveMetric):
    """Base of metrics whose ``update`` takes source outputs ``preds`` and labels ``target``.

    Args:
        num_target_classes: C.
        num_source_classes: Z.
        from_logits: Whether ``preds`` are logits or probabilities.
        ignore_index: Label of the rows that are left out.
        validate_args: Whether to check the values of each batch; types and shapes are always checked.
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If a number of classes is not a positive integer, ``ignore_index`` is not an integer or a flag is
            not a bool.
    """

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
        self.num_target_classes = int(num_target_classes)
        self.num_source_classes = int(num_source_classes)
        self.from_logits = from_logits
        self.ignore_index = ignore_index
        self.add_validation(validate_args)
        self.add_states()

    @abstractmethod
    def add_states(self) -> None:
        """Add the states. The constructor calls this last, so that a subclass need not repeat its arguments."""

    def labelled_rows(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``[m, Z]`` and labels ``[m]`` of a checked batch, without its ignored rows."""
        check_layout(preds, target, self.num_source_classes)
        rows, labels = flatten_rows(preds, target, self.ignore_index)  # [m, Z], [m]
        if self.validate_args:
            check_labels(labels, self.num_target_classes)
        return rows, labels
