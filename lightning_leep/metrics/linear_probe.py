"""The leave-one-out linear probe, alone and together with the other scores of features."""

from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.feature_space import FeatureSpace, space_of_rows
from lightning_leep.functional.h_score import h_score_of_space
from lightning_leep.functional.linear_discriminant import linear_discriminant
from lightning_leep.functional.linear_probe import (
    NUM_CANDIDATES,
    LinearProbe,
    best_candidate,
    linear_probe_result,
    linear_probe_sums,
)
from lightning_leep.functional.log_me import log_me_of_space
from lightning_leep.functional.moments import central_moments
from lightning_leep.metrics.additive import nan_for_too_few_rows
from lightning_leep.metrics.feature_metric import FeatureMetric
from lightning_leep.metrics.row_metric import RowMetric, RowScorer

#: Most rows, on all processes together, of which single outcomes are kept.
MAX_ROW_OUTCOMES = 10_000


class LinearProbeAccuracy(FeatureMetric, RowMetric):
    """Leave-one-out accuracy of a linear discriminant on features: the accuracy to expect of a re-trained head.

    Each row is predicted by the shrunk linear discriminant of all other rows, in closed form, as in
    :func:`lightning_leep.functional.linear_probe.linear_probe`, where the formula and its sources are. Rows that are
    the only one of their class are left out of the mean. :meth:`result` returns everything else that is known.

    The rows are kept on the process that saw them, as references: do not overwrite them. Each process sends its
    moments, ``8 (d^2 + C d)`` bytes, and ``384 (2 + C)`` bytes of scores, whatever n. In a ``MetricCollection`` it
    shares its moments with :class:`HScore` and :class:`LogME` if they are in one of its ``compute_groups``, this metric
    first.

    Arguments are those of the function, ``num_features`` d, ``validate_args`` as in
    :class:`~lightning_leep.metrics.leep.LEEPMetric`, ``keep_rows`` of
    :class:`~lightning_leep.metrics.row_metric.RowMetric`, and those of :class:`torchmetrics.Metric`.

    Example:
        >>> metric = LinearProbeAccuracy(num_target_classes=2, num_features=2)
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.2, 0.8], [0.1, 1.2]]), torch.tensor([0, 0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.1], [1.2, 0.0], [0.9, 0.3]]), torch.tensor([1, 1, 1]))
        >>> metric.compute().item()
        1.0
    """

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    #: Where the scores of single rows are put, if they are wanted: :meth:`keep_outcomes`.
    outcomes: list[Tensor] | None = None

    def add_states(self) -> None:
        """Add the states."""
        super().add_states()
        sums = torch.zeros(2 + self.num_target_classes, NUM_CANDIDATES, dtype=torch.float64)
        self.add_state("score_sums", sums, dist_reduce_fx="sum")
        self.add_reading_states(self.num_target_classes, self.num_features)

    def add_rows(self, rows: Tensor, target: Tensor) -> None:
        """Add features ``[n, d]`` and labels ``[n]``."""
        super().add_rows(rows, target)
        self.keep(rows, target)

    def row_sums(self) -> Tensor:
        """Sum of the features of each class, ``[C, d]``."""
        return self.class_sums + self.class_counts.unsqueeze(1) * self.centre

    def magnitudes(self) -> tuple[Tensor, Tensor]:
        """Upper bounds of the sums of the magnitudes of all features, about their mean and about 0; both 0-d."""
        num_rows, mean = self.moments.num_rows, self.moments.mean
        spread = (num_rows * central_moments(self.moments).scatter.diagonal().clamp(min=0.0)).sqrt().sum()
        return spread, spread + num_rows * mean.abs().sum()

    def space(self) -> FeatureSpace:
        """What scores are computed from: the rows, if all are held here and are no more than the features."""
        here = sum(len(rows) for rows in self.rows)
        if 0 < here <= self.num_features and here == int(self.moments.num_rows):
            rows, labels = (torch.cat([part.to(self.device) for part in parts]) for parts in (self.rows, self.labels))
            return space_of_rows(rows, labels, self.num_target_classes)
        return super().space()

    def row_scorer(self) -> RowScorer:
        """Scores of a row under every candidate, given the moments of all rows; 0 if any feature is not finite."""
        if not self.moments.is_finite:
            return lambda rows, target: torch.zeros_like(self.score_sums)
        discriminant = linear_discriminant(self.space())
        return lambda rows, target: linear_probe_sums(rows, target, discriminant, of_rows=self.new_outcomes(target))

    def total_scores(self) -> Tensor:
        """``[2 + C, NUM_CANDIDATES]``: sums of the scores of pooled rows and of rows held here."""
        if not self.rows or not self.moments.is_finite:
            return self.score_sums
        space = self.space()
        if space.rows is None or space.labels is None:
            return super().total_scores()
        discriminant, of_rows = linear_discriminant(space), self.new_outcomes(space.labels)
        return self.score_sums + linear_probe_sums(space.rows, space.labels, discriminant, of_rows=of_rows)

    def keep_outcomes(self) -> None:
        """Keep the outcome of each row for the next result, if there are at most ``MAX_ROW_OUTCOMES`` rows."""
        self.outcomes = []

    def new_outcomes(self, target: Tensor) -> Tensor | None:
        """Where the scores of rows with labels ``target [m]`` go, ``[2, NUM_CANDIDATES, m]``; None if nowhere."""
        if self.outcomes is None or int(self.class_counts.sum()) > MAX_ROW_OUTCOMES:
            return None
        self.outcomes.append(torch.full((2, NUM_CANDIDATES, len(target)), torch.nan))
        return self.outcomes[-1]

    def with_outcomes(self, probe: LinearProbe, sums: Tensor) -> LinearProbe:
        """The probe with the outcomes, float32, of the rows that this process scored, in the order of the updates.

        They are handed out once. A probe keeps its None if outcomes are not kept or there are too many rows.
        """
        if (outcomes := self.outcomes) is None:
            return probe
        self.outcomes = None
        if int(self.class_counts.sum()) > MAX_ROW_OUTCOMES:
            return probe
        chosen = [of_rows[:, best_candidate(sums)] for of_rows in outcomes]
        correct, log_likelihood = torch.cat([torch.empty(2, 0), *chosen], dim=1)  # [m] each
        return probe._replace(row_correct=correct, row_log_likelihood=log_likelihood)

    def result_here(self) -> LinearProbe:
        """The probe of the rows in the state: those of this process, or all rows while synchronised."""
        sums, counts = self.total_scores(), self.class_counts * self.moments.is_finite
        if self.moments.is_finite:
            self.check_second_pass()
        return self.with_outcomes(linear_probe_result(sums, counts), sums)

    def result(self) -> LinearProbe:
        """Everything that is known of the probe, on all rows seen so far, on all processes; nothing of single rows.

        Every process must call it, since it pools the states as ``compute`` does; afterwards they are local again.
        Names, shapes and units: :class:`~lightning_leep.functional.linear_probe.LinearProbe`.
        """
        synced = self._is_synced
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync and not synced, should_unsync=not synced
        ):
            return self.result_here()

    def compute(self) -> Tensor:
        """Leave-one-out accuracy on all rows seen so far, on all processes: 0-d, in 0..1; NaN for too few rows."""
        probe = self.result_here()
        if int(probe.num_rows) == 0:
            return nan_for_too_few_rows(self, 0, minimum=2)
        return probe.accuracy


class FeatureScores(LinearProbeAccuracy):
    """H-score with and without shrinkage, LogME and the leave-one-out linear probe together.

    It takes the arguments of :class:`~lightning_leep.metrics.linear_probe.LinearProbeAccuracy`. The scores are
    explained there, in :class:`~lightning_leep.metrics.feature_metric.HScore` and in
    :class:`~lightning_leep.metrics.feature_metric.LogME`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._space: tuple[Tensor, FeatureSpace] | None = None

    def space(self) -> FeatureSpace:
        """What scores are computed from; it is kept until ``compute`` has used it."""
        if self._space is None or self._space[0] is not self.scatter:  # states are rebound, never changed
            self._space = self.scatter, super().space()
            _ = self._space[1].spectrum  # the other scores need it, so the probe can use it too
        return self._space[1]

    def scores_and_probe(self) -> tuple[dict[str, Tensor], LinearProbe]:
        """Scores of the rows in the state, as ``compute`` returns them, and everything that is known of the probe."""
        probe, num_rows = self.result_here(), int(self.moments.num_rows)
        if num_rows < 2 or not self.moments.is_finite:
            missing = torch.full_like(self.quartic, torch.nan)
            values = dict.fromkeys(("h_score", "h_score_unshrunk", "log_me"), missing)
            if num_rows < 2:
                nan_for_too_few_rows(self, num_rows)
        else:
            space = self.space()
            plain = h_score_of_space(space, shrinkage=False)
            values = {"h_score": h_score_of_space(space), "h_score_unshrunk": plain, "log_me": log_me_of_space(space)}
        self._space = None
        return values | {
            "linear_probe_accuracy": probe.accuracy,
            "linear_probe_accuracy_standard_error": probe.standard_error,
            "linear_probe_balanced_accuracy": probe.balanced_accuracy,
            "linear_probe_log_likelihood": probe.log_likelihood,
            "linear_probe_samples": probe.num_rows,
            "linear_probe_shrinkage": probe.shrinkage,
        }, probe

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Scores of all rows seen so far, on all processes, 0-d by name.

        ``h_score`` and ``h_score_unshrunk`` have no unit and are at least 0; ``log_me`` is in nats per row;
        ``linear_probe_accuracy``, its ``linear_probe_accuracy_standard_error``, ``linear_probe_balanced_accuracy`` (the
        mean over the classes) and ``linear_probe_shrinkage`` are in 0..1; ``linear_probe_log_likelihood`` is in nats
        per row, at most 0; ``linear_probe_samples``, int64, is the number of scored rows. The others are float64. They
        are NaN, with a warning, for fewer than two rows; those of the probe also if no class has two rows.
        """
        return self.scores_and_probe()[0]
