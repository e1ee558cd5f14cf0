"""All scores of one kind of input together, each with what belongs to it, from one state."""

from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.feature_space import FeatureSpace
from lightning_leep.functional.h_score import h_score_of_space
from lightning_leep.functional.linear_probe import LinearProbe
from lightning_leep.functional.log_me import log_me_of_space
from lightning_leep.metrics.additive import nan_for_too_few_rows
from lightning_leep.metrics.joint import JointMetric
from lightning_leep.metrics.linear_probe import LinearProbeAccuracy


class EEPScores(JointMetric):
    """LEEP, its leave-one-out form and the EEP's accuracy together, each with its standard error.

    It takes the arguments of :class:`~lightning_leep.metrics.leep.LEEPMetric`, ``leave_one_out`` aside; the scores are
    explained there and in :class:`~lightning_leep.metrics.eep_accuracy.EEPAccuracy`.
    """

    num_scores = 3
    names = ("leep", "leave_one_out_leep", "eep_accuracy")

    def compute(self) -> dict[str, Tensor]:
        """Scores of all rows seen so far, on all processes, 0-d float64 by name.

        ``leep`` and ``leave_one_out_leep`` are in nats, at most 0, ``eep_accuracy`` in 0..1; the standard error of each
        has ``_standard_error`` added to its name. They are NaN, with a warning, for fewer than two rows to score.
        """
        mean, error = self.mean_and_standard_error()
        mean = torch.cat([mean[:2].clamp(max=0.0), mean[2:]])  # a perfect source may end a rounding error above 0
        values = dict(zip(self.names, mean, strict=True))
        return values | {f"{name}_standard_error": e for name, e in zip(self.names, error, strict=True)}


class FeatureScores(LinearProbeAccuracy):
    """H-score with and without shrinkage, LogME and the leave-one-out linear probe together.

    It takes the arguments of :class:`~lightning_leep.metrics.linear_probe.LinearProbeAccuracy`. The scores are
    explained there, in :class:`~lightning_leep.metrics.h_score.HScore` and in
    :class:`~lightning_leep.metrics.log_me.LogME`.
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
