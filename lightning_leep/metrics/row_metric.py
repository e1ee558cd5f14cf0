"""Metrics that score rows against sums over all rows. The rows stay on the process that saw them."""

import zlib
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_leep.functional.chunks import joined_blocks
from lightning_leep.functional.inputs import check_flag
from lightning_leep.functional.leep import joint_probability
from lightning_leep.metrics.additive import AdditiveMetric, nan_for_too_few_rows

#: From ``rows [m, K], target [m]`` to sums of their scores, in the shape of ``score_sums``.
RowScorer = Callable[[Tensor, Tensor], Tensor]

#: How much the sums of two passes may differ, as a share of the sum of the rows' magnitudes. The last digits of a
#: source's output depend on the other rows of the batch. Different rows differ by about 1 / sqrt(rows of a class).
READING_TOLERANCE = 1e-4


class RowMetric(AdditiveMetric):
    """Mean over all rows of a score that depends on the row and on sums over all rows.

    The processes first add up their sums, then score their own rows against the result, then add up the scores; no row
    is sent. ``compute`` is "scores pooled so far plus scores of the rows held here", synchronised or not.

    With ``keep_rows=False`` ``update`` keeps no rows. The state then has a fixed size, and the same batches must go
    through :meth:`second_pass` before ``compute``.
    """

    names: tuple[str, ...] = ("score",)  #: of the scores of a row

    rows: list[Tensor]
    labels: list[Tensor]
    score_sums: Tensor
    class_counts: Tensor
    unread: Tensor
    reading_error: Tensor

    def __init__(self, keep_rows: bool = True, **kwargs: Any) -> None:
        check_flag("keep_rows", keep_rows)
        super().__init__(**kwargs)
        self.keep_rows = keep_rows
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")
        # Number of rows scored, sum of their scores and of the squares.
        self.add_state("score_sums", torch.zeros(3, len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        # Metrics that keep no rows hold scores in their state, so they may share it only with metrics that score alike.
        # The state has its own name, as a metric without rows has all other states in common with one that keeps them.
        scorer = None if keep_rows else zlib.crc32(repr((type(self).__qualname__, self.names)).encode())
        self.add_settings(keep_rows, scorer, name="row_settings")

    def add_reading_states(self, num_target_classes: int, num_columns: int) -> None:
        """Add the states that compare the rows ``[m, K]`` of a second pass with those of the first."""
        if not self.keep_rows:
            # Sums of the first pass minus those of the second, for each class; the last column counts rows.
            unread = torch.zeros(num_target_classes, num_columns + 1, dtype=torch.float64)
            self.add_state("unread", unread, dist_reduce_fx="sum")
            # Sum over the rows of the second pass of the machine epsilon of their dtype.
            self.add_state("reading_error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @abstractmethod
    def prepare(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Check a batch and bring it to rows ``[m, K]`` and labels ``[m]``."""

    @abstractmethod
    def row_sums(self) -> Tensor:
        """Sum of the rows of each class, ``[C, K]``."""

    @abstractmethod
    def magnitudes(self) -> tuple[Tensor, Tensor]:
        """Sums of the magnitudes of all rows about their mean (or 0) and about 0, or upper bounds of them; both 0-d."""

    @abstractmethod
    def row_scorer(self) -> RowScorer:
        """Return the function that scores rows on the metric's device, given the pooled sums."""

    def pool(self, reduce: Callable[[Tensor], Tensor], gather: Callable[[Tensor], list[Tensor]]) -> None:
        """Pool the sums, score this process's rows against them, pool the scores and drop the rows."""
        super().pool(reduce, gather)
        self.score_sums = reduce(self.total_scores())
        self.rows, self.labels = [], []
        if not self.keep_rows:
            self.unread, self.reading_error = reduce(self.unread), reduce(self.reading_error)

    def merge_state(self, incoming_state: "dict[str, Any] | Metric") -> None:
        """Add the state of another metric. A metric that keeps no rows needs its second pass after this."""
        super().merge_state(incoming_state)
        self.forget_second_pass()

    def keep(self, rows: Tensor, target: Tensor) -> None:
        """Keep a reference to the rows of one batch and a copy of its labels."""
        self.forget_second_pass()
        if rows.shape[0] and self.keep_rows:
            self.rows = [*self.rows, rows]
            self.labels = [*self.labels, target.clone()]

    def forget_second_pass(self) -> None:
        """Drop the scores that were computed before the sums changed."""
        if not self.keep_rows:
            self.score_sums, self.unread = torch.zeros_like(self.score_sums), torch.zeros_like(self.unread)
            self.reading_error = torch.zeros_like(self.reading_error)

    def second_pass(self, sync: bool | None = None) -> Callable[[Tensor, Tensor], None]:
        """Begin a second pass over the same batches, for a metric that keeps no rows.

        Every process must call it, since it pools the sums of the first pass. ``sync`` says whether the rows are scored
        against the sums of all processes; None means as ``sync_on_compute`` does. The result is the function that takes
        each batch again, with the arguments of ``update``. ``RuntimeError`` if the metric keeps its rows.
        """
        if self.keep_rows:
            raise RuntimeError(f"{type(self).__name__} keeps its rows; a second pass needs `keep_rows=False`.")
        self.forget_second_pass()
        self._computed = None
        should_sync = self._to_sync if sync is None else sync
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=should_sync):
            scorer = self.row_scorer()
        num_classes = len(self.class_counts)
        self.unread = torch.cat([self.row_sums(), self.class_counts.unsqueeze(1)], dim=1)  # [C, K + 1]

        def score_batch(preds: Tensor, target: Tensor) -> None:
            rows, labels = self.prepare(preds, target)  # [m, K], [m]
            scores, num_rows = scorer(rows, labels), torch.bincount(labels, minlength=num_classes)
            read = torch.cat([joint_probability(rows, labels, num_classes), num_rows.unsqueeze(1)], dim=1)
            self.score_sums = self.score_sums + scores.to(self.score_sums)
            self.unread = self.unread - read.to(self.unread)
            self.reading_error = self.reading_error + len(labels) * torch.finfo(preds.dtype).eps
            self._computed = None

        return score_batch

    def total_scores(self) -> Tensor:
        """Sums of the scores of pooled rows and of rows held here, in the shape of ``score_sums``."""
        total = self.score_sums
        if self.rows:
            scorer = self.row_scorer()
            for rows, target in joined_blocks(self.rows, self.labels):
                total = total + scorer(rows.to(self.device), target.to(self.device)).to(total)
        return total

    def check_second_pass(self) -> None:
        """Check the second pass of a metric that keeps no rows.

        ``RuntimeError`` if there was none, or if a metric with other scores made it; ``ValueError`` if it had other
        rows than the first.
        """
        if self.keep_rows:
            return
        if bool(self.class_counts.any()) and not bool(self.reading_error):
            raise RuntimeError(
                f"{type(self).__name__} has `keep_rows=False`: pass the batches through `second_pass()` as well."
            )
        for name, built in self._defaults.items():  # in a compute group the states may have been replaced
            settings = built.to(self.device) if isinstance(built, Tensor) and name.endswith("settings") else None
            if settings is not None and not torch.equal(getattr(self, name), settings):
                raise RuntimeError(
                    f"{type(self).__name__} with `keep_rows=False` shares the state of a metric with other scores: "
                    "leave it out of the `compute_groups` of the collection."
                )
        magnitude, size = self.magnitudes()
        mean_error = self.reading_error / self.class_counts.sum().clamp(min=1)
        check_same_rows(self.unread, magnitude, rounding=size * mean_error)

    def mean_and_standard_error(self) -> tuple[Tensor, Tensor]:
        """Mean of the row scores and its standard error, both ``[k]``; NaN, with a warning, for fewer than two rows."""
        count, total, squares = self.total_scores()  # [k] each
        self.check_second_pass()
        enough = count >= 2  # [k]
        if not bool(enough.all()):
            nan_for_too_few_rows(self, int(count.min()))
        mean = torch.where(enough, total / count, torch.nan)
        variance = (squares / count - mean.square()).clamp(min=0.0) * count / (count - 1)
        return mean, (variance / count).sqrt()


def sum_scores(*scores: Tensor) -> Tensor:
    """``[3, k]``: number, sum and sum of squares of k scores, each ``[m]``, m being its number of scored rows."""
    return torch.stack([torch.stack([s.new_tensor(s.numel()), s.sum(), s.square().sum()]) for s in scores], dim=1)


def check_same_rows(unread: Tensor, magnitude: Tensor, rounding: Tensor) -> None:
    """Raise ``ValueError`` unless the sums of both passes are equal up to rounding.

    ``unread [C, K + 1]`` are those of the first pass minus those of the second; the last column counts rows.
    ``magnitude`` is the sum of the magnitudes of all rows about their mean, ``rounding`` the most that the rounding of
    the rows to their dtype can add up to; both 0-d.
    """
    missing = int(unread[:, -1].sum())
    if bool(unread[:, -1].any()):
        found = f"{abs(missing)} rows {'fewer' if missing > 0 else 'more'}" if missing else "other labels"
    else:
        gap = unread[:, :-1].abs().sum()
        if bool(gap <= READING_TOLERANCE * magnitude + rounding):
            return
        found = f"rows whose sums differ by {float(gap / magnitude):.2g} of their magnitude"
    raise ValueError(
        f"The second pass must have the rows of the first, got {found}. Random augmentations and samplers that draw "
        "with replacement give different rows each time."
    )
