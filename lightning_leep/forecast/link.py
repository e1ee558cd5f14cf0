"""A transfer on the scale on which differences of accuracy are alike everywhere: the logit."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lightning_leep.forecast.conformal import Array
from lightning_leep.report import TransferabilityReport

# Standard deviation of logit(achieved) - logit(probe) that is left when both are measured on endless data. For a head
# it is the round number that gives 90% intervals about 90% coverage on the CIFAR-100 tasks of benchmarks/.
HEAD_MODEL_ERROR = 0.07
# The same for other strategies, of which a probe on frozen features says much less; from 42 fine-tuned networks there.
OTHER_MODEL_ERROR = 0.45


def logit(p: float, n: int) -> float:
    """Logit of a proportion out of n rows, finite at 0 and 1: half a row is added on both sides."""
    return math.log((p * n + 0.5) / ((1 - p) * n + 0.5))


def from_logit(value: float, n: int) -> float:
    """Inverse of :func:`logit`, cut at 0 and 1; infinite values are allowed."""
    return min(1.0, max(0.0, (sigmoid(value) * (n + 1) - 0.5) / n))


def sigmoid(value: float) -> float:
    """The proportion of which ``value`` is the logit."""
    return 0.5 * (1 + math.tanh(value / 2))


def model_error(strategy: str) -> float:
    """Standard deviation of logit(achieved) - logit(probe) without any sampling error."""
    return HEAD_MODEL_ERROR if strategy == "head" else OTHER_MODEL_ERROR


class Feature(NamedTuple):
    """Something in nats or logits on which the gap between probe and achieved accuracy may depend."""

    value: Callable[[TransferabilityReport, float], float]
    show: Callable[[float], str]


# Scores minus their floor, -H(Y): LEEP itself says mostly how many classes there are.
FEATURES = (
    Feature(lambda _, base: base, lambda v: f"accuracy {sigmoid(v):.2f} before training"),
    Feature(lambda r, _: math.log(r.num_target_classes), lambda v: f"{math.exp(v):.0f} classes"),
    Feature(lambda r, _: math.log(r.num_samples / r.num_target_classes), lambda v: f"{math.exp(v):.1f} rows a class"),
    Feature(lambda r, _: r.leep - r.floor, lambda v: f"LEEP {v:.2f} above its floor"),
    Feature(lambda r, _: r.leave_one_out_leep - r.floor, lambda v: f"leave-one-out LEEP {v:.2f} above its floor"),
)


@dataclass(frozen=True)
class TransferPoint:
    r"""What the regression sees of a transfer.

    Attributes:
        accuracy: Accuracy p of the linear probe, or of the expected empirical predictor where there were no features.
        from_probe: Which of the two.
        base: Its logit, out of n rows.
        num_samples: Rows n that it was measured on.
        test_size: Rows m of each validation; n if unknown.
        scale: Expected size of logit(achieved) - base: :math:`(1/n + 1/m) / (p (1 - p)) + \tau^2`, square-rooted.
        features: The values of ``FEATURES``, ``[p]``; NaN where a score is missing.
    """

    accuracy: float
    from_probe: bool
    base: float
    num_samples: int
    test_size: int
    scale: float
    features: Array

    @classmethod
    def of(cls, report: TransferabilityReport, test_size: int | None, strategy: str) -> "TransferPoint | None":
        """The point of a report; None if it holds no accuracy at all."""
        probe, n = report.linear_probe_accuracy, report.num_samples
        from_probe = probe is not None and math.isfinite(probe)
        if probe is not None and from_probe:
            accuracy, n = probe, report.linear_probe_samples or n
        else:
            accuracy = report.eep_accuracy
        if not math.isfinite(accuracy):
            return None
        m = n if test_size is None else test_size
        base = logit(accuracy, n)
        variance = (1 / n + 1 / m) / (sigmoid(base) * sigmoid(-base)) + model_error(strategy) ** 2
        features = np.array([feature.value(report, base) for feature in FEATURES], dtype=float)
        return cls(accuracy, from_probe, base, n, m, math.sqrt(variance), features)


def describe_outside(features: Array, x: Array) -> str:
    """What is unusual about features ``[p]`` beside those of the records ``[n, p]``, as a sentence."""
    parts = []
    for feature, value, column in zip(FEATURES, features, x.T, strict=True):
        seen = column[~np.isnan(column)]
        if len(seen) and not seen.min() <= value <= seen.max() and not math.isnan(value):
            word, extreme = ("least", seen.min()) if value < seen.min() else ("most", seen.max())
            parts.append(f"{feature.show(value)} ({word} there: {feature.show(extreme)})")
    return f"Unlike every transfer of the history: {', '.join(parts) or 'an unusual combination of scores and sizes'}."
