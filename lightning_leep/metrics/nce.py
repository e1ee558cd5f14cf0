"""NCE as a streaming, distributed metric."""

import torch
from torch import Tensor

from lightning_leep.functional.nce import check_decisions, decision_counts, nce_from_counts
from lightning_leep.metrics.additive import nan_for_too_few_rows
from lightning_leep.metrics.inputs import SourceOutputMetric


class NegativeConditionalEntropy(SourceOutputMetric):
    """Negative conditional entropy of the target labels given the source's most probable classes, -H(Y|Z).

    It is :func:`lightning_leep.functional.nce.nce`, where the formula and its source are. At most 0, higher is better,
    in nats. The state is ``8 C Z`` bytes, whatever the number of rows, and all that a process sends.

    Arguments: as for :class:`~lightning_leep.metrics.leep.LEEPMetric`, without ``leave_one_out`` and ``keep_rows``.

    Example:
        >>> metric = NegativeConditionalEntropy(num_target_classes=2, num_source_classes=2)
        >>> metric.update(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[3.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 1]))
        >>> round(metric.compute().item(), 4)
        -0.4774
    """

    plot_upper_bound: float = 0.0
    pooled_states = ("counts",)

    counts: Tensor

    def add_states(self) -> None:
        """Add the states."""
        shape = (self.num_target_classes, self.num_source_classes)
        self.add_state("counts", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_settings(self.ignore_index)

    def add_rows(self, rows: Tensor, target: Tensor) -> None:
        """Add outputs ``[n, Z]`` and labels ``[n]``."""
        if self.validate_args:
            check_decisions(rows, self.from_logits)
        self.counts = self.counts + decision_counts(rows, target, self.num_target_classes)  # [C, Z]

    def compute(self) -> Tensor:
        """NCE of all rows seen so far, on all processes: 0-d, in nats, at most 0; NaN for fewer than two rows."""
        num_rows = int(self.counts.sum())
        if num_rows < 2:
            return nan_for_too_few_rows(self, num_rows)
        return nce_from_counts(self.counts)
