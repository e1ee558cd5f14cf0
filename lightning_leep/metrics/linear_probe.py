"""Leave-one-out linear probe as a streaming, distributed metric."""

import torch
from torch import Tensor

from lightning_leep.functional.linear_probe import (
    NUM_PROBE_SCORES,
    LinearProbe,
    linear_discriminant,
    linear_probe_result,
    linear_probe_sums,
)
from lightning_leep.functional.moments import recentre_moments, total_scatter
from lightning_leep.metrics.additive import nan_for_too_few_rows
from lightning_leep.metrics.feature_metric import FeatureMetric
from lightning_leep.metrics.row_metric import RowMetric, RowScorer


class LinearProbeAccuracy(FeatureMetric, RowMetric):
    r"""Leave-one-out accuracy of a linear discriminant on features: the accuracy to expect of a re-trained head.

    Each row is predicted by the shrunk linear discriminant of all other rows, in closed form, as in
    :func:`lightning_leep.functional.linear_probe.linear_probe`, where the formula and its sources are. Rows that are
    the only one of their class are left out of the mean.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``features``: ``[N, d]`` or ``[N, d, d1, ...]``, floating point of any precision.
    - ``target``: ``[N]`` or ``[N, d1, ...]``, integer labels in ``0 .. C-1``.

    ``compute`` returns a 0-d float64 tensor in 0..1; NaN, with a warning, when no class has two rows. :meth:`result`
    returns everything else that is known.

    The rows are kept, on the process that saw them (references if they need no conversion: do not overwrite them).
    Across processes travel the moments, ``8 (d^2 + C d)`` bytes, and a few numbers, whatever n. In a
    ``MetricCollection`` it shares its moments with :class:`HScore` and :class:`LogME` when they are named in one of
    its ``compute_groups``, this metric first.

    Args:
        num_target_classes: C; classes without an image are allowed.
        num_features: d.
        ignore_index: Label of the rows that are left out.
        validate_args: Whether to check the values of each batch; types and shapes are always checked.
        kwargs: ``keep_rows`` of :class:`~lightning_leep.metrics.row_metric.RowMetric`, and keyword arguments of
            :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If a number is not a positive integer or ``ignore_index`` is no integer.

    Example:
        >>> import torch
        >>> from lightning_leep import LinearProbeAccuracy
        >>> metric = LinearProbeAccuracy(num_target_classes=2, num_features=2)
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.2, 0.8], [0.1, 1.2]]), torch.tensor([0, 0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.1], [1.2, 0.0], [0.9, 0.3]]), torch.tensor([1, 1, 1]))
        >>> metric.compute().item()
        1.0
    """

    num_scores = NUM_PROBE_SCORES
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def add_states(self) -> None:
        """Add the states."""
        super().add_states()
        self.add_reading_states(self.num_target_classes, self.num_features)

    def origin(self) -> Tensor:
        """Mean of all rows ``[d]``."""
        return self.moments.mean

    def sums_about(self, origin: Tensor) -> Tensor:
        """Sum of the features of each class about ``origin``, ``[C, d]``."""
        return recentre_moments(self.moments, origin).class_sums

    def magnitudes(self) -> tuple[Tensor, Tensor]:
        """What the magnitudes of all features add up to at most, about their mean and about 0."""
        num_rows, mean = self.moments.num_rows, self.moments.mean
        spread = (num_rows * total_scatter(self.moments).diagonal().clamp(min=0.0)).sqrt().sum()
        return spread, spread + num_rows * mean.abs().sum()

    def row_scorer(self, device: torch.device) -> RowScorer:
        """Scores of a row under every candidate shrinkage: whether it is predicted rightly, and its log-likelihood.

        Features that are not finite, of any row, leave no row that can be scored.
        """
        if not self.moments.is_finite:
            return lambda rows, target: torch.zeros(3, self.num_scores, dtype=self.score_sums.dtype, device=device)
        discriminant = linear_discriminant(self.moments).to(device)
        return lambda rows, target: linear_probe_sums(rows, target, discriminant)

    def result_here(self) -> LinearProbe:
        """The probe of the rows that the state stands for: this process's, or all of them when synchronised."""
        sums = self.total_scores()
        # Otherwise a second pass finds no row to score.
        if bool((self.moments.class_counts > 1).any()) and self.moments.is_finite:
            self.check_second_pass(sums)
        return linear_probe_result(sums, self.moments.num_rows)

    def result(self) -> LinearProbe:
        """Accuracy, its standard error, log-likelihood, counts and shrinkage, of the rows of all processes.

        Every process has to call it, since it pools the states as ``compute`` does; afterwards they are as before.
        """
        synced = self._is_synced
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync and not synced, should_unsync=not synced
        ):
            return self.result_here()

    def compute(self) -> Tensor:
        """Leave-one-out accuracy over all rows seen so far, on all processes."""
        probe = self.result_here()
        if int(probe.num_rows) == 0:
            return nan_for_too_few_rows(self, 0, minimum=2)
        return probe.accuracy
