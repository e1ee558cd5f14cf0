"""All scores in one MetricCollection, which stores and computes nothing twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchmetrics import MetricCollection

from lightning_leep.metrics.feature_metric import HScore, LogME
from lightning_leep.metrics.leep import EEPAccuracy, LEEPMetric
from lightning_leep.metrics.linear_probe import LinearProbeAccuracy
from lightning_leep.metrics.nce import NegativeConditionalEntropy
from lightning_leep.metrics.nearest_neighbour import NearestNeighbourAccuracy


class TransferabilityMetrics(MetricCollection):
    """A collection in which a batch counts for all metrics or, if one of them refuses it, for none."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add a batch. An error leaves every metric unchanged."""
        with self._all_or_nothing():
            super().update(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Add a batch and return the scores of that batch alone. An error leaves every metric unchanged."""
        with self._all_or_nothing():
            return super().forward(*args, **kwargs)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        before = [(metric, vars(metric).copy()) for metric in self.values(copy_state=False)]
        try:
            yield
        except Exception:
            for metric, attributes in before:
                vars(metric).update(attributes)
            raise


def transferability_metrics(
    num_target_classes: int,
    num_source_classes: int,
    num_features: int,
    from_logits: bool = True,
    ignore_index: int | None = None,
    **kwargs: Any,
) -> TransferabilityMetrics:
    """Every score of one source. The metrics share their states: a joint with its rows, feature moments with theirs.

    ``update(preds=..., features=..., target=...)`` takes keyword arguments; each metric picks its own. ``compute``
    returns a 0-d float64 tensor by the name of each score: ``leep``, ``leave_one_out_leep``, ``nce`` and ``log_me`` in
    nats, ``eep_accuracy``, ``linear_probe_accuracy`` and ``nearest_neighbour_accuracy`` in 0..1, ``h_score`` without
    a unit.

    The arguments are those of the metrics (C, Z and d first) and of :class:`torchmetrics.MetricCollection`, such as
    ``prefix``.

    Example:
        >>> import torch
        >>> metrics = transferability_metrics(num_target_classes=2, num_source_classes=3, num_features=4)
        >>> metrics.update(preds=torch.randn(8, 3), features=torch.randn(8, 4), target=torch.arange(8) % 2)
        >>> sorted(metrics.compute())[:6]
        ['eep_accuracy', 'h_score', 'leave_one_out_leep', 'leep', 'linear_probe_accuracy', 'log_me']
    """
    outputs = (num_target_classes, num_source_classes, from_logits, ignore_index)
    sizes = num_target_classes, num_features
    metrics = {
        "leep": LEEPMetric(*outputs),
        "leave_one_out_leep": LEEPMetric(*outputs, leave_one_out=True),
        "eep_accuracy": EEPAccuracy(*outputs),
        "nce": NegativeConditionalEntropy(*outputs),
        "linear_probe_accuracy": LinearProbeAccuracy(*sizes, ignore_index=ignore_index),
        "h_score": HScore(*sizes, ignore_index=ignore_index),
        "log_me": LogME(*sizes, ignore_index=ignore_index),
        "nearest_neighbour_accuracy": NearestNeighbourAccuracy(*sizes, ignore_index=ignore_index),
    }
    # Only the first of a group is updated. The probe's state contains that of the other feature scores.
    groups = [
        ["leep", "leave_one_out_leep", "eep_accuracy"],
        ["nce"],
        ["linear_probe_accuracy", "h_score", "log_me"],
        ["nearest_neighbour_accuracy"],
    ]
    return TransferabilityMetrics(metrics, compute_groups=groups, **kwargs)  # type: ignore[arg-type]
