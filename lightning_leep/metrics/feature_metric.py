"""Moments of features, and the scores that are functions of them alone: H-score and LogME."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.feature_space import FeatureSpace, space_of_moments
from lightning_leep.functional.h_score import h_score_of_space
from lightning_leep.functional.inputs import check_flag
from lightning_leep.functional.log_me import log_me_of_space
from lightning_leep.functional.moments import (
    FeatureMoments,
    empty_moments,
    merge_moments,
    recentre_moments,
    update_moments,
)
from lightning_leep.metrics.additive import nan_for_too_few_rows
from lightning_leep.metrics.inputs import FeatureInputMetric


class FeatureMetric(FeatureInputMetric):
    """Moments of labelled features: a state of fixed size, ``8 (d^2 + C d)`` bytes, whatever the number of rows.

    Metrics with this base and no other state form one compute group in a ``MetricCollection`` if they ignore the same
    label. The processes add up their means, which gives a common centre, and then their moments about it.
    """

    centre: Tensor
    class_counts: Tensor
    class_sums: Tensor
    scatter: Tensor
    cubic: Tensor
    quartic: Tensor

    def add_states(self) -> None:
        """Add the moments."""
        for name, zeros in empty_moments(self.num_target_classes, self.num_features)._asdict().items():
            self.add_state(name, zeros, dist_reduce_fx="sum")
        self.add_settings(self.ignore_index)

    @property
    def moments(self) -> FeatureMoments:
        """Moments of all rows seen so far."""
        return FeatureMoments(*(getattr(self, name) for name in FeatureMoments._fields))

    @moments.setter
    def moments(self, moments: FeatureMoments) -> None:
        for name, value in moments._asdict().items():
            setattr(self, name, value)

    def space(self) -> FeatureSpace:
        """What scores are computed from, of all rows seen so far."""
        return space_of_moments(self.moments)

    def score(self, of_space: Callable[[FeatureSpace], Tensor]) -> Tensor:
        """0-d score of all rows; NaN for moments that are not finite and, with a warning, for fewer than two rows."""
        num_rows = int(self.moments.num_rows)
        if num_rows < 2:
            return nan_for_too_few_rows(self, num_rows)
        return of_space(self.space()) if self.moments.is_finite else torch.full_like(self.quartic, torch.nan)

    def add_rows(self, rows: Tensor, target: Tensor) -> None:
        """Add features ``[n, d]`` and labels ``[n]``."""
        self.moments = update_moments(self.moments, rows, target)

    def pool(self, reduce: Callable[[Tensor], Tensor], gather: Callable[[Tensor], list[Tensor]]) -> None:
        """Agree with all processes on a centre, move the moments there and add them up."""
        moments = self.moments
        num_rows = reduce(moments.num_rows)
        centre = reduce(moments.mean * moments.num_rows) / num_rows.clamp(min=1)  # [d]
        moved = recentre_moments(moments, centre)
        self.moments = FeatureMoments(centre, *(reduce(part) for part in moved[1:]))
        super().pool(reduce, gather)

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        incoming = FeatureMoments(*(incoming_state[name] for name in FeatureMoments._fields))
        merged = merge_moments(incoming, self.moments)
        super()._reduce_states(incoming_state)  # the states that a subclass adds
        self.moments = merged


class HScore(FeatureMetric):
    """H-score of features: their variance between classes, measured in units of their total variance.

    It is :func:`lightning_leep.functional.h_score.h_score`, where the formula and its source are, computed exactly from
    moments of fixed size. At least 0, at most the number of classes minus one. Higher is better. In a
    ``MetricCollection`` it shares its state with :class:`LogME` and with H-scores of the other ``shrinkage``.

    Arguments are those of the function, ``num_features`` d, ``validate_args`` as in
    :class:`~lightning_leep.metrics.leep.LEEPMetric`, and those of :class:`torchmetrics.Metric`.

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


class LogME(FeatureMetric):
    """Logarithm of the maximum evidence, per row, of linear models from features to each class.

    It is :func:`lightning_leep.functional.log_me.log_me`, where the formula and its source are, computed exactly from
    moments of fixed size. Higher is better. It is a density, so it may be positive, and compares sources on one target,
    not targets. In a ``MetricCollection`` it shares its state with :class:`HScore`.

    Arguments are those of the function, ``num_features`` d, ``validate_args`` as in
    :class:`~lightning_leep.metrics.leep.LEEPMetric`, and those of :class:`torchmetrics.Metric`.

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
