"""A transfer on the scale on which differences of accuracy are alike everywhere: the logit."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lightning_leep.forecast.statistics.conformal import Array
from lightning_leep.records.report import TransferabilityReport

# Standard deviation of logit(achieved) - logit(probe) that is left when both are measured on endless data. For a head
# it is the round number that gives 90% intervals about 90% coverage on the CIFAR-100 tasks of benchmarks/.
HEAD_MODEL_ERROR = 0.07
# The same for other strategies, of which a probe on frozen features says much less; from 42 fine-tuned networks there.
OTHER_MODEL_ERROR = 0.45
# What the forecast starts from.
LINEAR_PROBE = "a linear probe"
EMPIRICAL_PREDICTOR = "the expected empirical predictor"


def logit(p: float, n: int) -> float:
    """Logit of a proportion out of n rows, finite at 0 and 1: half a row is added on both sides."""
    return math.log((p * n + 0.5) / ((1 - p) * n + 0.5))


def from_logit(value: float, n: int) -> float:
    """Inverse of :func:`logit`, cut at 0 and 1; infinite values are allowed."""
    return min(1.0, max(0.0, (sigmoid(value) * (n + 1) - 0.5) / n))


def sigmoid(value: float) -> float:
    """The proportion of which ``value`` is the logit."""
    return 0.5 * (1 + math.tanh(value / 2))


def model_error(trainable: str) -> float:
    """Standard deviation of logit(achieved) - logit(probe) without any sampling error."""
    return HEAD_MODEL_ERROR if trainable == "head" else OTHER_MODEL_ERROR


class Feature(NamedTuple):
    """Something in nats or logits on which the gap between probe and achieved accuracy may depend."""

    value: Callable[[TransferabilityReport, float], float]
    show: Callable[[float], str]


CLASSES = Feature(lambda r, _: math.log(r.num_target_classes), lambda v: f"{math.exp(v):.0f} classes")
# Scores minus their floor, -H(Y): LEEP itself says mostly how many classes there are.
TRANSFER_FEATURES = (
    Feature(lambda _, base: base, lambda v: f"accuracy {sigmoid(v):.2f} before training"),
    CLASSES,
    Feature(lambda r, _: math.log(r.num_samples / r.num_target_classes), lambda v: f"{math.exp(v):.1f} rows a class"),
    Feature(lambda r, _: r.leep - r.floor, lambda v: f"LEEP {v:.2f} above its floor"),
    Feature(
        lambda r, _: r.leave_one_out_leep - r.leave_one_out_floor,
        lambda v: f"leave-one-out LEEP {v:.2f} above its floor",
    ),
)
# Training from scratch knows the target data and nothing of the source that was scored.
SCRATCH_FEATURES = (CLASSES, Feature(lambda r, _: math.log(r.num_samples), lambda v: f"{math.exp(v):.0f} rows"))


def point_features(trainable: str) -> tuple[Feature, ...]:
    """On what the achieved accuracy may depend, beside the anchor."""
    return SCRATCH_FEATURES if trainable == "scratch" else TRANSFER_FEATURES


@dataclass(frozen=True)
class TransferPoint:
    r"""What the regression sees of a transfer.

    Attributes:
        anchor: Whose accuracy p a history corrects: that of ``LINEAR_PROBE`` or, where there were no features, of
            ``EMPIRICAL_PREDICTOR``; empty from "scratch", which has p = 1/2.
        accuracy: That accuracy p.
        base: Its logit, out of n rows.
        num_samples: Rows n that it was measured on.
        test_size: Rows m of each validation; n if unknown.
        scale: Expected size of logit(achieved) - base: :math:`(1/n + 1/m) / (p (1 - p)) + \tau^2`, square-rooted. From
            scratch, where p was not measured, without 1/n.
        features: The values of :func:`point_features`, ``[p]``; NaN where a score is missing.
    """

    anchor: str
    accuracy: float
    base: float
    num_samples: int
    test_size: int
    scale: float
    features: Array

    @classmethod
    def of(cls, report: TransferabilityReport, test_size: int | None, trainable: str) -> "TransferPoint | None":
        """The point of a report; None if it holds no accuracy to start from."""
        n, anchor, accuracy, base, sampling = report.num_samples, "", 0.5, 0.0, 0.0
        if trainable != "scratch":
            probe = report.linear_probe_accuracy
            if probe is not None and math.isfinite(probe):
                anchor, accuracy, n = LINEAR_PROBE, probe, report.linear_probe_samples or n
            else:
                anchor, accuracy = EMPIRICAL_PREDICTOR, report.eep_accuracy
            if not math.isfinite(accuracy):
                return None
            base, sampling = logit(accuracy, n), 1 / n
        m = n if test_size is None else test_size
        variance = (sampling + 1 / m) / (sigmoid(base) * sigmoid(-base)) + model_error(trainable) ** 2
        features = np.array([feature.value(report, base) for feature in point_features(trainable)], dtype=float)
        return cls(anchor, accuracy, base, n, m, math.sqrt(variance), features)


def describe_outside(trainable: str, features: Array, x: Array) -> str:
    """What is unusual about features ``[p]`` beside those of the records ``[n, p]``, as a sentence.

    A single record that is as unusual is mentioned, but does not make it usual.
    """
    parts = []
    for feature, value, column in zip(point_features(trainable), features, x.T, strict=True):
        seen = np.sort(column[~np.isnan(column)])
        if len(seen) == 0 or math.isnan(value):
            continue
        for word, extremes in (("least", seen), ("most", seen[::-1])):
            sign = 1 if word == "least" else -1
            if sign * value < sign * extremes[0]:
                parts.append(f"{feature.show(value)} ({word} there: {feature.show(extremes[0])})")
            elif len(seen) > 2 and sign * value < sign * extremes[1]:
                parts.append(f"{feature.show(value)} ({word} there but for one: {feature.show(extremes[1])})")
    what = ", ".join(parts) or "an unusual combination of scores and sizes"
    return f"Unlike nearly every transfer of the history: {what}."
