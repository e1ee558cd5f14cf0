"""Metrics that score rows against a state of fixed size, with the rows kept on the process that saw them."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from lightning_leep.metrics.additive import AdditiveMetric

#: From ``rows [m, K], target [m]`` to one 1-d tensor a score; a row that a score cannot be given to is left out of it.
RowScorer = Callable[[Tensor, Tensor], Sequence[Tensor]]


class RowMetric(AdditiveMetric):
    """Mean over all rows of a score that depends on the row and on sums over every row.

    Across processes travel the sums and, once each process has scored its own rows against the pooled sums, the
    sums of those scores; never a row. ``compute`` is "scores pooled so far plus scores of the rows held here",
    whether or not the metric was synchronised.
    """

    #: How many scores :meth:`row_scorer` gives each row.
    num_scores: ClassVar[int] = 1

    rows: list[Tensor]
    labels: list[Tensor]
    score_sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("rows", [], dist_reduce_fx=None)
        self.add_state("labels", [], dist_reduce_fx=None)
        # Number of rows scored, sum of their scores and of the squares.
        self.add_state("score_sums", torch.zeros(3, self.num_scores, dtype=torch.float64), dist_reduce_fx="sum")

    @abstractmethod
    def row_scorer(self, device: torch.device) -> RowScorer:
        """Return the function that scores rows, given the pooled sums. It works on ``device``, where the rows are."""

    def pool(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Pool the sums, score this process's rows against them, pool the scores and let go of the rows."""
        super().pool(reduce)
        self.score_sums = reduce(self.total_scores())
        self.rows, self.labels = [], []

    def keep(self, rows: Tensor, target: Tensor) -> None:
        """Hold on to the rows of one batch (references, no copy)."""
        if rows.shape[0]:
            self.rows.append(rows)
            self.labels.append(target)

    def total_scores(self) -> Tensor:
        """Number, sum and sum of squares ``[3, num_scores]`` of the scores: pooled ones and those of the rows here."""
        total = self.score_sums
        scorers: dict[torch.device, RowScorer] = {}
        for rows, target in zip(self.rows, self.labels, strict=True):
            if rows.device not in scorers:
                scorers[rows.device] = self.row_scorer(rows.device)
            scores = scorers[rows.device](rows, target)
            sums = [torch.stack([s.new_tensor(s.numel()), s.sum(), s.square().sum()]) for s in scores]
            total = total + torch.stack(sums, dim=1).to(total.device)  # [3, k]
        return total

    def mean_and_standard_error(self) -> tuple[Tensor, Tensor]:
        """Mean ``[k]`` of the row scores and its standard error; NaN, with a warning, for fewer than two rows."""
        count, total, squares = self.total_scores()  # [k] each
        if bool((count < 2).any()):
            rank_zero_warn(
                f"{type(self).__name__} needs at least 2 rows to say anything, got {int(count.min())}; it returns NaN.",
                UserWarning,
            )
            return torch.full_like(total, torch.nan), torch.full_like(total, torch.nan)
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0.0) * count / (count - 1)
        return mean, (variance / count).sqrt()
