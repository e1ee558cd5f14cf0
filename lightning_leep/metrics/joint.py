"""State shared by the metrics that score rows with the expected empirical predictor (EEP)."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_leep.functional.inputs import probability_rows
from lightning_leep.functional.joint import (
    conditional_probability,
    eep_correct,
    eep_likelihood,
    joint_probability,
    leave_one_out_likelihood,
)
from lightning_leep.metrics.inputs import SourceOutputMetric
from lightning_leep.metrics.row_metric import RowMetric, RowScorer, sum_scores


class JointMetric(SourceOutputMetric, RowMetric):
    """Joint of target labels and source classes, and the rows that it is the sum of.

    Metrics with this base and the same constructor arguments form one compute group in a ``MetricCollection``. It takes
    the arguments of its two bases.
    """

    pooled_states = ("joint", "class_counts")
    names: tuple[str, ...]  #: of its scores

    joint: Tensor
    class_counts: Tensor

    def add_states(self) -> None:
        """Add the states."""
        shape = (self.num_target_classes, self.num_source_classes)
        self.add_state("joint", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("class_counts", torch.zeros(self.num_target_classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_settings(self.from_logits, self.ignore_index)
        self.add_reading_states(*shape)

    def prepare(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Check a batch and return its source distributions ``[m, Z]`` and labels ``[m]``."""
        rows, labels = super().prepare(preds, target)  # [m, Z], [m]
        return probability_rows(rows, self.from_logits, self.validate_args), labels

    def add_rows(self, rows: Tensor, target: Tensor) -> None:
        """Add source distributions ``[n, Z]`` and labels ``[n]``."""
        joint = joint_probability(rows, target, self.num_target_classes, earlier=self.joint)  # [C, Z]
        class_counts = self.class_counts + torch.bincount(target, minlength=self.num_target_classes)  # [C]
        self.keep(rows, target)
        self.joint, self.class_counts = joint, class_counts

    def row_scorer(self, device: torch.device) -> RowScorer:
        """The scores ``names`` of a row: its label's log-likelihood, that from other rows, whether the EEP is right."""
        joint, counts = self.joint.to(device), self.class_counts.to(device)
        conditional = conditional_probability(joint)  # [C, Z]
        scores: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "leep": lambda probs, target: eep_likelihood(probs, target, conditional).log(),
            "leave_one_out_leep": lambda probs, target: leave_one_out_likelihood(probs, target, joint, counts).log(),
            "eep_accuracy": lambda probs, target: eep_correct(probs, target, conditional),
        }
        return lambda probs, target: sum_scores(*(scores[name](probs, target) for name in self.names))

    def origin(self) -> Tensor:
        """``[Z]``, zeros."""
        return torch.zeros_like(self.joint[0])

    def sums_about(self, origin: Tensor) -> Tensor:
        """Sum of the source distributions of each class about ``origin``, ``[C, Z]``."""
        return self.joint - self.class_counts.unsqueeze(1) * origin

    def magnitudes(self) -> tuple[Tensor, Tensor]:
        """Sum of all probabilities, twice, as the origin is 0."""
        return self.joint.sum(), self.joint.sum()
