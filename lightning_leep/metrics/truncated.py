"""Joint and rows of which only the k largest probabilities are kept: an estimate, and bounds on what it stands for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.inputs import check_num_classes
from lightning_leep.functional.log_sum_bounds import bound_log_sum
from lightning_leep.functional.truncated import (
    KeptRows,
    LikelihoodParts,
    TruncatedLikelihood,
    relative_rounding,
    truncate_rows,
    truncated_totals,
)
from lightning_leep.metrics.joint import JointMetric


class TruncatedJointMetric(JointMetric):
    """:class:`~lightning_leep.metrics.joint.JointMetric` that may keep only the k largest probabilities of each row.

    The joint stays exact; beside it is summed the joint of what was left out. With ``top_k=None`` this is its base,
    state for state. The score of a row has to be the logarithm of the probability that the EEP gives to its label.

    Args:
        num_target_classes: C.
        num_source_classes: Z.
        from_logits: Whether ``preds`` are logits or probabilities.
        ignore_index: Label of the rows that are left out.
        validate_args: Whether to check the values of each batch; types and shapes are always checked.
        top_k: Number of probabilities kept of each row; None keeps all.
        kwargs: As its base.

    Raises:
        ValueError: If ``top_k`` is not a positive integer, or comes with ``keep_rows=False`` or a ``row_dtype``, which
            are other ways to save the same memory.
    """

    columns: list[Tensor]
    residuals: list[Tensor]
    truncated_joint: Tensor
    bound_sums: Tensor

    def __init__(
        self,
        num_target_classes: int,
        num_source_classes: int,
        from_logits: bool = True,
        ignore_index: int | None = None,
        validate_args: bool = True,
        top_k: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_target_classes, num_source_classes, from_logits, ignore_index, validate_args, **kwargs)
        self.top_k = top_k
        if top_k is None:
            return
        check_num_classes("top_k", top_k)
        if not self.keep_rows or self.row_dtype is not None:
            raise ValueError(
                "`top_k` needs `keep_rows=True` and `row_dtype=None`, "
                f"got `keep_rows={self.keep_rows}` and `row_dtype={self.row_dtype}`."
            )
        self.add_state("columns", [], dist_reduce_fx="cat")
        self.add_state("residuals", [], dist_reduce_fx="cat")
        self.add_state("truncated_joint", torch.zeros_like(self.joint), dist_reduce_fx="sum")
        # Lower and upper bound of the sum of the scores pooled so far.
        self.add_state("bound_sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_settings(from_logits, ignore_index, top_k)

    def keep(self, rows: Tensor, target: Tensor) -> None:
        """Hold on to one batch: its rows, or the ``top_k`` largest probabilities of each."""
        if self.top_k is None:
            super().keep(rows, target)
        elif rows.shape[0]:
            kept, truncated_joint = truncate_rows(rows, target, self.top_k, self.num_target_classes)
            self.rows, self.labels = [*self.rows, kept.probs], [*self.labels, target.clone()]
            self.columns, self.residuals = [*self.columns, kept.columns], [*self.residuals, kept.residual]
            self.truncated_joint = self.truncated_joint + truncated_joint

    def check_states(self, states: dict[str, Any]) -> None:
        """Raise ``ValueError`` unless ``states`` are those of a metric like this one that is not synchronised."""
        super().check_states(states)
        if self.top_k is not None and not len(states["rows"]) == len(states["columns"]) == len(states["residuals"]):
            raise ValueError(
                f"The states hold {len(states['rows'])} `rows`, {len(states['columns'])} `columns` and "
                f"{len(states['residuals'])} `residuals`."
            )

    def pool(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Pool the sums, then scores and bounds of the rows held by all processes, and let go of the rows."""
        if self.top_k is None:
            super().pool(reduce)
            return
        for name in (*self.pooled_states, "truncated_joint"):
            setattr(self, name, reduce(getattr(self, name)))
        parts, target = self._likelihood_parts()
        self.score_sums = reduce(self.score_sums + _estimate_sums(parts))
        self.bound_sums = reduce(self.bound_sums) + self._row_bounds(parts, target, reduce)
        self.rows, self.columns, self.residuals, self.labels = [], [], [], []

    def total_scores(self) -> Tensor:
        """Number, sum and sum of squares ``[3, 1]`` of the scores; with ``top_k``, of their estimates."""
        if self.top_k is None:
            return super().total_scores()
        return self.score_sums + _estimate_sums(self._likelihood_parts()[0])

    def estimate_and_bounds(self) -> tuple[Tensor, Tensor, Tensor]:
        """Estimate of the mean score and its lower and upper bound, 0-d; NaN, with a warning, for fewer than 2 rows.

        The estimates of the truncated parts need not add up to their known totals, once they are kept within their
        bounds. So the estimate of the mean is kept within its own.
        """
        parts, target = self._likelihood_parts()
        mean, _ = self.mean_and_standard_error(self.score_sums + _estimate_sums(parts))
        bound_sums = self.bound_sums
        if self.rows:  # otherwise all rows were pooled, and so were their bounds
            bound_sums = bound_sums + self._row_bounds(parts, target, reduce=lambda value: value)
        # Exact LEEP is not above 0; NaN stays NaN.
        low, high = torch.where(mean.isnan(), mean, bound_sums / self.class_counts.sum()).clamp(max=0.0)  # [2] -> 0-d
        return mean[0].clamp(low, high), low, high

    def _likelihood_parts(self) -> tuple[LikelihoodParts, Tensor]:
        """Parts of the likelihood of all rows held here, and their labels, on the device of the joint."""
        scorers: dict[torch.device, TruncatedLikelihood] = {}
        nothing = self.joint.new_zeros(0)
        parts = [LikelihoodParts(nothing, nothing, nothing, nothing)]
        for batch, target in zip(self._batches(), self.labels, strict=True):
            device = target.device
            if device not in scorers:
                joints = self.joint.to(device), self.truncated_joint.to(device)
                scorers[device] = TruncatedLikelihood(*joints, num_rows=int(self.class_counts.sum()))
            parts.append(LikelihoodParts(*(part.to(self.joint.device) for part in scorers[device](batch, target))))
        target = torch.cat([self.class_counts.new_zeros(0), *(t.to(self.joint.device) for t in self.labels)])
        return LikelihoodParts(*(torch.cat(part) for part in zip(*parts, strict=True))), target

    def _batches(self) -> list[KeptRows]:
        return [KeptRows(*batch) for batch in zip(self.rows, self.columns, self.residuals, strict=True)]

    def _row_bounds(self, parts: LikelihoodParts, target: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """Lower and upper bound ``[2]`` of the sum of the scores of the rows held by all processes."""
        num_rows = max(1, int(self.class_counts.sum()))
        bounds = bound_log_sum(
            parts.kept,
            parts.low,
            parts.high,
            target,
            totals=truncated_totals(self.joint, self.truncated_joint),
            # A row's own largest probability p, at least 1/Z, is kept, and its P(y|z) is at least p/n.
            smallest=1 / (self.num_source_classes**2 * num_rows),
            rounding=relative_rounding(num_rows, self.joint),
            reduce=reduce,
        )
        return torch.stack(bounds)


def _estimate_sums(parts: LikelihoodParts) -> Tensor:
    """Number of rows, sum of the estimated scores and of their squares, ``[3, 1]``."""
    scores = (parts.kept + parts.estimate).log()  # [n]
    return torch.stack([scores.new_tensor(scores.shape[0]), scores.sum(), scores.square().sum()]).unsqueeze(1)
