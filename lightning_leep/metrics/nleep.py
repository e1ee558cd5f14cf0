"""N-LEEP as a distributed metric."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype
from lightning_leep.functional.leep import conditional_probability, eep_likelihood, joint_probability
from lightning_leep.functional.nleep import (
    MAX_FIT_ROWS,
    fit_mixture,
    mixture_posteriors,
    mixture_size,
    principal_axes,
    project,
    row_keys,
)
from lightning_leep.metrics.additive import nan_for_too_few_rows
from lightning_leep.metrics.feature_metric import FeatureMetric
from lightning_leep.metrics.linear_probe import LinearProbeAccuracy
from lightning_leep.utils.distributed import gather_rows


class NLEEP(FeatureMetric):
    """N-LEEP of features: LEEP of a source whose classes are the components of a Gaussian mixture.

    It is :func:`lightning_leep.functional.nleep.nleep`, where the definition and its source are. It needs no classifier
    head. At most 0, higher is better, in nats. ``ModuleNotFoundError`` if scikit-learn is not installed.

    The rows are kept on the process that saw them, as references: do not overwrite them. A mixture is not a function of
    sums, so each process sends the rows that the mixture may be fitted to: at most ``max_fit_rows``, projected on the k
    principal components, ``8 k max_fit_rows`` bytes. The choice and the order of these rows depend only on their
    values, so every process fits the mixture that one process with all rows would fit. Each process then scores its own
    rows; joint and score are pooled by sums.

    Arguments are those of the function, ``num_features`` d, ``validate_args`` as in
    :class:`~lightning_leep.metrics.leep.LEEPMetric`, and those of :class:`torchmetrics.Metric`.

    Example:
        >>> metric = NLEEP(num_target_classes=2, num_features=2, num_components=2)
        >>> target = torch.arange(2).repeat(20)
        >>> metric.update(torch.linspace(-1, 1, 80).reshape(40, 2) + 20 * target.unsqueeze(1), target)
        >>> abs(round(metric.compute().item(), 4))
        0.0
    """

    plot_upper_bound: float = 0.0
    keep_rows = True

    rows: list[Tensor]
    labels: list[Tensor]
    score_sums: Tensor

    def __init__(
        self,
        num_target_classes: int,
        num_features: int,
        num_components: int | None = None,
        max_fit_rows: int | None = MAX_FIT_ROWS,
        seed: int = 0,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_target_classes, num_features, ignore_index, validate_args, **kwargs)
        self.num_components = mixture_size(num_target_classes, num_components, max_fit_rows)
        self.max_fit_rows, self.seed = max_fit_rows, seed
        self._minimum_rows = max(2, self.num_components)
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")
        # Number of rows scored and sum of their scores, filled once the processes are synchronised.
        self.add_state("score_sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def add_rows(self, rows: Tensor, target: Tensor) -> None:
        """Add features ``[n, d]`` and labels ``[n]``, and keep a reference to the features and a copy of the labels."""
        super().add_rows(rows, target)
        if rows.shape[0]:
            self.rows, self.labels = [*self.rows, rows], [*self.labels, target.clone()]

    def share_state(self, metric: LinearProbeAccuracy) -> None:
        """Take over the moments and rows of a metric of the same sizes, instead of updates with its batches."""
        self.moments, self.rows, self.labels = metric.moments, metric.rows, metric.labels
        self._update_count, self._computed = metric.update_count, None

    def compute(self) -> Tensor:
        """N-LEEP of all rows seen so far, on all processes: 0-d, in nats, at most 0; NaN for too few rows."""
        num_rows = int(self.moments.num_rows)
        if num_rows < self._minimum_rows:
            return nan_for_too_few_rows(self, num_rows, self._minimum_rows)
        if not self.moments.is_finite:
            return torch.full_like(self.moments.quartic, torch.nan)
        sums = self.score_sums
        if self.rows:
            sums = sums + self._score(lambda value: value, lambda value: [value])
        count, total = sums
        return (total / count).clamp(max=0.0)  # classes far apart may end a rounding error above 0

    def pool(self, reduce: Callable[[Tensor], Tensor], gather: Callable[[Tensor], list[Tensor]]) -> None:
        """Pool the moments, score this process's rows by the common mixture, pool the scores and drop the rows."""
        super().pool(reduce, gather)
        if int(self.moments.num_rows) >= self._minimum_rows and self.moments.is_finite:
            self.score_sums = self._score(reduce, gather)
        self.rows, self.labels = [], []

    def _score(self, reduce: Callable[[Tensor], Tensor], gather: Callable[[Tensor], list[Tensor]]) -> Tensor:
        """``[2]``, number and sum of the scores of the rows here, summed by ``reduce``.

        The moments must be those of all rows that ``reduce`` and ``gather`` reach.
        """
        axes, mean = principal_axes(self.moments), self.moments.mean  # [d, k], [d]
        projected = [torch.zeros(0, axes.shape[1], dtype=axes.dtype)]
        keys, labels = [torch.zeros(0, dtype=torch.long)], [torch.zeros(0, dtype=torch.long)]
        for rows, target in zip(self.rows, self.labels, strict=True):
            projected.append(project(rows, mean.to(rows.device), axes.to(rows.device)))
            keys.append(row_keys(rows, self.seed))
            labels.append(target.cpu())
        points, target = torch.cat(projected), torch.cat(labels)  # [n, k], [n]
        fitted = self._rows_to_fit(torch.cat(keys), points, gather)  # [m, k]
        posteriors = mixture_posteriors(fit_mixture(fitted, self.num_components, self.seed), points)  # [n, V]
        joint = joint_probability(posteriors, target, self.num_target_classes)  # [C, V]
        conditional = conditional_probability(reduce(self._as_state(joint)).cpu().to(joint.dtype))
        scores = eep_likelihood(posteriors, target, conditional).log()  # [n]
        return reduce(self._as_state(torch.stack([scores.new_tensor(len(scores)), scores.sum()])))

    def _rows_to_fit(self, keys: Tensor, points: Tensor, gather: Callable[[Tensor], list[Tensor]]) -> Tensor:
        """``[m, k]``, the rows with the smallest keys of all processes, in the order of their keys."""
        if points.shape[1] == 0:  # the features do not vary on any process, so nothing needs to be sent
            return points
        mine = keys.argsort()[: self.max_fit_rows]
        keys, points = gather_rows((keys[mine], points[mine]), gather, self.device)
        return points[keys.argsort()[: self.max_fit_rows]]

    def _as_state(self, value: Tensor) -> Tensor:
        return value.to(self.device, accumulation_dtype(self.device))
