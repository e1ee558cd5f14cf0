"""All scores of one kind of input together, each with what belongs to it, from one state."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_leep.functional.h_score import h_score_from_moments
from lightning_leep.functional.joint import (
    conditional_probability,
    eep_correct,
    eep_likelihood,
    leave_one_out_likelihood,
)
from lightning_leep.functional.log_me import log_me_from_moments
from lightning_leep.metrics.joint import JointMetric
from lightning_leep.metrics.linear_probe import LinearProbeAccuracy
from lightning_leep.metrics.row_metric import RowScorer, sum_scores


class EEPScores(JointMetric):
    """LEEP, its leave-one-out form and the EEP's accuracy together, each with its standard error.

    Takes the arguments of its base. ``compute`` returns a dictionary of 0-d tensors: ``leep``, ``leave_one_out_leep``,
    ``eep_accuracy`` and the same names with ``_standard_error``. See
    :class:`~lightning_leep.metrics.leep.LEEPMetric` and :class:`~lightning_leep.metrics.eep_accuracy.EEPAccuracy`.
    """

    num_scores = 3
    names: ClassVar[tuple[str, ...]] = ("leep", "leave_one_out_leep", "eep_accuracy")

    def row_scorer(self, device: torch.device) -> RowScorer:
        """Scores of a row: log-likelihood of its label, the same without the row itself, whether the EEP is right."""
        joint, counts = self.joint.to(device), self.class_counts.to(device)
        conditional = conditional_probability(joint)  # [C, Z]
        return lambda probs, target: sum_scores(
            eep_likelihood(probs, target, conditional).log(),
            leave_one_out_likelihood(probs, target, joint, counts).log(),
            eep_correct(probs, target, conditional),
        )

    def compute(self) -> dict[str, Tensor]:
        """Scores of all rows seen so far, on all processes."""
        mean, error = self.mean_and_standard_error()
        mean = torch.cat([mean[:2].clamp(max=0.0), mean[2:]])  # a perfect source may end a rounding error above 0
        values = dict(zip(self.names, mean, strict=True))
        return values | {f"{name}_standard_error": e for name, e in zip(self.names, error, strict=True)}


class FeatureScores(LinearProbeAccuracy):
    """H-score with and without shrinkage, LogME and the leave-one-out linear probe together.

    Takes the arguments of its base. ``compute`` returns a dictionary of 0-d tensors: ``h_score``,
    ``h_score_unshrunk``, ``log_me``, ``linear_probe_accuracy``, ``linear_probe_accuracy_standard_error``,
    ``linear_probe_log_likelihood``, ``linear_probe_samples`` and ``linear_probe_shrinkage``.
    """

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Scores of all rows seen so far, on all processes."""
        probe = self.result_here()
        return {
            "h_score": h_score_from_moments(self.moments),
            "h_score_unshrunk": h_score_from_moments(self.moments, shrinkage=False),
            "log_me": log_me_from_moments(self.moments),
            "linear_probe_accuracy": probe.accuracy,
            "linear_probe_accuracy_standard_error": probe.standard_error,
            "linear_probe_log_likelihood": probe.log_likelihood,
            "linear_probe_samples": probe.num_rows,
            "linear_probe_shrinkage": probe.shrinkage,
        }
