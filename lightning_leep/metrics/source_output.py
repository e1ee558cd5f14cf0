"""Arguments and layout shared by the metrics that take the outputs of a source classifier."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from lightning_leep.functional.inputs import check_flag, check_ignore_index, check_num_classes, labelled_rows
from lightning_leep.metrics.additive import AdditiveMetric


class SourceOutputMetric(AdditiveMetric):
    """Base of metrics whose ``update`` takes source outputs ``preds`` and labels ``target``."""

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

    @abstractmethod
    def add_rows(self, preds: Tensor, target: Tensor) -> None:
        """Add checked outputs ``[n, Z]`` and labels ``[n]`` to the states."""

    def prepare(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Check a batch and return its outputs ``[m, Z]`` and labels ``[m]``, without ignored rows."""
        sizes = self.num_target_classes, self.num_source_classes, self.ignore_index
        return labelled_rows(preds, target, *sizes, validate_args=self.validate_args)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: ``[N, Z]`` or ``[N, Z, d1, ...]`` source outputs, floating point of any precision.
            target: ``[N]`` or ``[N, d1, ...]`` integer labels in ``0 .. C-1``.

        Raises:
            TypeError: If ``preds`` is not floating point or ``target`` is not integer.
            ValueError: If shapes, labels or, with ``validate_args``, values are invalid. The state does not change.
        """
        self.add_rows(*self.prepare(preds, target))
