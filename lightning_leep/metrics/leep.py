"""LEEP as a streaming, distributed metric."""

from typing import Any

from torch import Tensor

from lightning_leep.functional.inputs import check_flag
from lightning_leep.metrics.joint import JointMetric


class LEEPMetric(JointMetric):
    """Log expected empirical prediction of a source classifier on labelled target data.

    It is :func:`lightning_leep.functional.leep.leep`, where the formula and its source are. At most 0, higher is
    better, in nats. A source whose output does not depend on the image scores minus the entropy of the labels.
    ``compute`` returns a 0-d float64 tensor; NaN, with a warning, for fewer than two rows.

    The rows are kept, ``4 n Z`` bytes, on the process that saw them. Of float32 probabilities references are kept: do
    not overwrite them. Each process sends ``8 C Z`` bytes and a few numbers, whatever n.

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
        super().__init__(num_target_classes, num_source_classes, from_logits, ignore_index, validate_args, **kwargs)
        self.leave_one_out = leave_one_out
        self.names = ("leave_one_out_leep" if leave_one_out else "leep",)
        if not self.keep_rows:  # its scores are a state
            self.add_settings(leave_one_out, name="score_settings")

    def check_second_pass(self, total_scores: Tensor) -> None:
        """Check the second pass as the base does. If no row can be scored, it rightly has no scores."""
        if not self.keep_rows:
            scored_class = self.class_counts >= (2 if self.leave_one_out else 1)  # [C]
            if not (bool(scored_class.any()) or bool(total_scores.any())):
                return
        super().check_second_pass(total_scores)

    def compute(self) -> Tensor:
        """LEEP of all rows seen so far, on all processes: 0-d, in nats, at most 0; NaN for fewer than two rows."""
        mean, _ = self.mean_and_standard_error()
        return mean[0].clamp(max=0.0)  # a perfect source may end a rounding error above 0
