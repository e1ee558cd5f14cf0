"""LEEP, and what else is computed from the joint of target labels and source classes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.inputs import check_flag, probability_rows
from lightning_leep.functional.leep import (
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
        self.joint = self.joint + joint_probability(rows, target, self.num_target_classes)  # [C, Z]
        self.class_counts = self.class_counts + torch.bincount(target, minlength=self.num_target_classes)  # [C]
        self.keep(rows, target)

    def row_scorer(self) -> RowScorer:
        """The scores ``names`` of a row: its label's log-likelihood, that from other rows, whether the EEP is right."""
        joint, counts = self.joint, self.class_counts
        conditional = conditional_probability(joint)  # [C, Z]
        scores: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "leep": lambda probs, target: eep_likelihood(probs, target, conditional).log(),
            "leave_one_out_leep": lambda probs, target: leave_one_out_likelihood(probs, target, joint, counts).log(),
            "eep_accuracy": lambda probs, target: eep_correct(probs, target, conditional),
        }
        return lambda probs, target: sum_scores(*(scores[name](probs, target) for name in self.names))

    def row_sums(self) -> Tensor:
        """Sum of the source distributions of each class, ``[C, Z]``."""
        return self.joint

    def magnitudes(self) -> tuple[Tensor, Tensor]:
        """Sum of all probabilities, twice."""
        return self.joint.sum(), self.joint.sum()


class LEEPMetric(JointMetric):
    """Log expected empirical prediction of a source classifier on labelled target data.

    It is :func:`lightning_leep.functional.leep.leep`, where the formula and its source are. At most 0, higher is
    better, in nats. A source whose output does not depend on the image scores minus the entropy of the labels.

    The rows are kept, ``4 n Z`` bytes, on the process that saw them. float32 probabilities are not copied: do not
    overwrite them. Each process sends ``8 C Z`` bytes and a few numbers, for any n.

    Args:
        num_target_classes: C; classes without an image are allowed.
        num_source_classes: Z.
        from_logits: Whether ``preds`` are logits (a softmax is applied, in float32 or better) or probabilities.
        ignore_index: Label of the rows that are left out.
        validate_args: Whether to check labels and outputs of each batch; types and shapes are always checked.
        leave_one_out: Whether each row is predicted from the other rows alone; rows that are the only one of their
            class are then left out.
        kwargs: ``keep_rows`` of :class:`~lightning_leep.metrics.row_metric.RowMetric`, and keyword arguments of
            :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is impossible.

    Example:
        >>> import torch
        >>> metric = LEEPMetric(num_target_classes=2, num_source_classes=2, from_logits=False)
        >>> metric.update(torch.tensor([[0.8, 0.2], [0.7, 0.3]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[0.1, 0.9], [0.2, 0.8]]), torch.tensor([1, 1]))
        >>> round(metric.compute().item(), 4)
        -0.384
    """

    plot_upper_bound: float = 0.0

    def __init__(
        self,
        num_target_classes: int,
        num_source_classes: int,
        from_logits: bool = True,
        ignore_index: int | None = None,
        validate_args: bool = True,
        leave_one_out: bool = False,
        **kwargs: Any,
    ) -> None:
        check_flag("leave_one_out", leave_one_out)
        self.leave_one_out = leave_one_out
        self.names = ("leave_one_out_leep" if leave_one_out else "leep",)
        super().__init__(num_target_classes, num_source_classes, from_logits, ignore_index, validate_args, **kwargs)

    def compute(self) -> Tensor:
        """LEEP of all rows seen so far, on all processes: 0-d, in nats, at most 0; NaN for fewer than two rows."""
        mean, _ = self.mean_and_standard_error()
        return mean[0].clamp(max=0.0)  # a perfect source may end a rounding error above 0


class EEPAccuracy(JointMetric):
    r"""Accuracy of the EEP, the classifier :math:`\arg\max_y \sum_z P(y|z) \theta(z)` whose log-likelihood is LEEP.

    It needs no training and usually lies well below the accuracy of a re-trained head. A row whose label is among k
    equally probable ones counts 1/k. It takes the input and the arguments of
    :class:`~lightning_leep.metrics.leep.LEEPMetric` except ``leave_one_out``, and shares its state in a
    ``MetricCollection``.

    Example:
        >>> import torch
        >>> metric = EEPAccuracy(num_target_classes=2, num_source_classes=2, from_logits=False)
        >>> metric.update(torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.1, 0.9]]), torch.tensor([0, 0, 1]))
        >>> metric.compute().item()
        1.0
    """

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    names = ("eep_accuracy",)

    def compute(self) -> Tensor:
        """Accuracy of the EEP on all rows seen so far, on all processes: 0-d, in 0..1; NaN for fewer than two rows."""
        mean, _ = self.mean_and_standard_error()
        return mean[0]


class EEPScores(JointMetric):
    """LEEP, its leave-one-out form and the EEP's accuracy together, each with its standard error.

    It takes the arguments of :class:`~lightning_leep.metrics.leep.LEEPMetric` except ``leave_one_out``; the scores are
    explained there and in :class:`~lightning_leep.metrics.leep.EEPAccuracy`.
    """

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
