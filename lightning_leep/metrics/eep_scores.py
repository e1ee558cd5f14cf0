"""Everything that the expected empirical predictor (EEP) says, from one pass over the kept rows."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_leep.functional.joint import (
    conditional_probability,
    eep_correct,
    eep_likelihood,
    leave_one_out_likelihood,
)
from lightning_leep.metrics.joint import JointMetric
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
