"""Leave-one-out accuracy of the nearest neighbours as a streaming, distributed metric."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype
from lightning_leep.functional.inputs import check_num_classes, largest_feature
from lightning_leep.functional.nearest_neighbour import MAX_SAMPLE_ROWS, balanced_sample, neighbour_votes
from lightning_leep.functional.nleep import row_keys
from lightning_leep.metrics.additive import nan_for_too_few_rows
from lightning_leep.metrics.inputs import FeatureInputMetric
from lightning_leep.utils.distributed import gather_rows


class NearestNeighbourAccuracy(FeatureInputMetric):
    """Accuracy with which the 5 nearest other rows name a row's class, on a class-balanced sample of the rows.

    The neighbours, the sample and their source are those of
    :func:`lightning_leep.functional.nearest_neighbour.nearest_neighbour_accuracy`.

    Only the sample is kept, ``max_rows`` rows and those of the last batches, as references: do not overwrite them. Each
    process sends its sample, and all make the same sample of those.

    Arguments are those of the function, ``num_features`` d, ``validate_args`` as in
    :class:`~lightning_leep.metrics.leep.LEEPMetric`, and those of :class:`torchmetrics.Metric`.

    Example:
        >>> target = torch.arange(2).repeat(20)
        >>> metric = NearestNeighbourAccuracy(num_target_classes=2, num_features=2)
        >>> metric.update(torch.eye(2)[target] + 0.1, target)
        >>> metric.compute().item()
        1.0
    """

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    rows: list[Tensor]
    labels: list[Tensor]
    keys: list[Tensor]
    score_sums: Tensor
    unusable: Tensor

    pooled_states: ClassVar[tuple[str, ...]] = ("unusable",)
    keep_rows = True

    def __init__(
        self,
        num_target_classes: int,
        num_features: int,
        max_rows: int = MAX_SAMPLE_ROWS,
        seed: int = 0,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        check_num_classes("max_rows", max_rows)
        self.max_rows, self.seed = int(max_rows), seed
        super().__init__(num_target_classes, num_features, ignore_index, validate_args, **kwargs)

    def add_states(self) -> None:
        """Add the states."""
        for name in ("rows", "labels", "keys"):
            self.add_state(name, [], dist_reduce_fx="cat")
        # Rows of each class that their neighbours name, and rows counted: filled once the processes are synchronised.
        self.add_state("score_sums", torch.zeros(self.num_target_classes, 2, dtype=torch.float64), dist_reduce_fx="sum")
        # Batches in which a feature is not finite or very large, if values are not checked.
        self.add_state("unusable", torch.zeros(self.num_features, dtype=torch.long), dist_reduce_fx="sum")
        self.add_settings(self.ignore_index, self.max_rows, self.seed, self.num_features)

    def add_rows(self, rows: Tensor, target: Tensor) -> None:
        """Add features ``[n, d]`` and labels ``[n]``."""
        if not len(rows):
            return
        keys = row_keys(rows, self.seed).to(target.device)
        if not self.validate_args:
            largest = min(largest_feature(rows.device), torch.finfo(rows.dtype).max)
            self.unusable = self.unusable + (~(rows.abs() <= largest)).any(dim=0).to(self.unusable)
        self.rows, self.labels = [*self.rows, rows.detach()], [*self.labels, target.clone()]
        self.keys = [*self.keys, keys]
        if sum(map(len, self.keys)) > 2 * max(self.max_rows, 2 * self.num_target_classes):
            self.rows, self.labels, self.keys = ([value] for value in self._sample(lambda values: values))

    def compute(self) -> Tensor:
        """Accuracy on the sample of all rows seen so far, on all processes: 0-d, in 0..1; NaN for too few rows."""
        correct, counted = (self._score(lambda values: values) if self.rows else self.score_sums).sum(dim=0)
        if not int(counted):
            return nan_for_too_few_rows(self, 0)
        return torch.where((self.unusable > 0).any(), torch.nan, correct / counted)

    def pool(self, reduce: Callable[[Tensor], Tensor], gather: Callable[[Tensor], list[Tensor]]) -> None:
        """Score the sample of all processes, and drop the rows."""

        def join(values: list[Tensor]) -> list[Tensor]:
            rows = values[0].to(accumulation_dtype(self.device))  # of one dtype, also from a process without rows
            return gather_rows((rows, *values[1:]), gather, self.device)

        super().pool(reduce, gather)
        self.score_sums = self._score(join)
        self.rows, self.labels, self.keys = [], [], []

    def _score(self, join: Callable[[list[Tensor]], list[Tensor]]) -> Tensor:
        rows, labels, _ = self._sample(join)
        right = neighbour_votes(rows, labels)  # [m]
        votes = torch.stack([right.nan_to_num(), right.isfinite().to(right)], dim=1).to(self.score_sums)  # [m, 2]
        return torch.zeros_like(self.score_sums).index_add(0, labels.to(self.device), votes)

    def _sample(self, join: Callable[[list[Tensor]], list[Tensor]]) -> list[Tensor]:
        """Rows ``[m, d]``, labels and keys of the sample; ``join`` adds those of the other processes."""
        none = torch.zeros(0, dtype=torch.long)
        empty = torch.zeros(0, self.num_features), none, none
        lists = zip(empty, (self.rows, self.labels, self.keys), strict=True)
        rows, labels, keys = (torch.cat([part.to(self.device) for part in (first, *parts)]) for first, parts in lists)
        for step in (join, list):
            chosen = balanced_sample(labels, keys, self.num_target_classes, self.max_rows)
            rows, labels, keys = step([rows[chosen], labels[chosen], keys[chosen]])
        return [rows, labels, keys]
