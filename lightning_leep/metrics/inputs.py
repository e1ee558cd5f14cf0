"""What the metrics take: outputs of a source classifier, or features, and labels."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.inputs import (
    check_flag,
    check_ignore_index,
    check_num_classes,
    feature_rows,
    labelled_rows,
)
from lightning_leep.metrics.additive import AdditiveMetric


class LabelledMetric(AdditiveMetric):
    """Base of metrics of labelled rows: their common arguments, and the steps of an update."""

    def __init__(self, num_target_classes: int, ignore_index: int | None, validate_args: bool, **kwargs: Any) -> None:
        check_num_classes("num_target_classes", num_target_classes)
        check_ignore_index(ignore_index)
        check_flag("validate_args", validate_args)
        super().__init__(**kwargs)
        self.num_target_classes = int(num_target_classes)
        self.ignore_index, self.validate_args = ignore_index, validate_args
        # Metrics that differ in it must not share their states, but states with and without checked values can be
        # merged, so it is not a setting.
        self.add_state("validates", torch.tensor(int(validate_args)), dist_reduce_fx="max")
        self.add_states()

    @abstractmethod
    def add_states(self) -> None:
        """Add the states. The constructor calls this last, so that a subclass need not repeat its arguments."""

    @abstractmethod
    def add_rows(self, rows: Tensor, target: Tensor) -> None:
        """Add checked rows ``[n, K]`` and labels ``[n]`` to the states."""


class SourceOutputMetric(LabelledMetric):
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
        check_num_classes("num_source_classes", num_source_classes)
        check_flag("from_logits", from_logits)
        self.num_source_classes, self.from_logits = int(num_source_classes), from_logits
        super().__init__(num_target_classes, ignore_index, validate_args, **kwargs)

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


class FeatureInputMetric(LabelledMetric):
    """Base of metrics whose ``update`` takes ``features`` and labels ``target``."""

    def __init__(
        self,
        num_target_classes: int,
        num_features: int,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        check_num_classes("num_features", num_features)
        self.num_features = int(num_features)
        super().__init__(num_target_classes, ignore_index, validate_args, **kwargs)

    def prepare(self, features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Check a batch and return its features ``[m, d]`` and labels ``[m]``, without ignored rows."""
        sizes = self.num_target_classes, self.num_features, self.ignore_index
        return feature_rows(features, target, *sizes, validate_args=self.validate_args)

    def update(self, features: Tensor, target: Tensor) -> None:
        """Add a batch: features ``[N, d]`` or ``[N, d, d1, ...]``, the rest as in :class:`SourceOutputMetric`."""
        self.add_rows(*self.prepare(features, target))
