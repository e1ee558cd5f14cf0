"""A transfer as a point for regression. Accuracies are on the logit scale, where differences are comparable."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

import numpy as np

from lightning_leep.forecast.statistics.conformal import Array
from lightning_leep.records.report import TransferabilityReport, or_nan
from lightning_leep.records.report_notes import LOGITS

# Standard deviation of logit(achieved) - logit(probe) without sampling error. For a head: the round number with which
# 90% intervals cover about 90% on the CIFAR-100 tasks of benchmarks/.
HEAD_MODEL_ERROR = 0.07
# The same for training more than a head: with a probe on the features of all layers, and with one on the last features
# only, which says much less. From networks that were fine-tuned on such tasks (benchmarks/cifar_finetune.py).
LAYERS_MODEL_ERROR = 0.12
OTHER_MODEL_ERROR = 0.45
# In place of LAYERS_MODEL_ERROR if layers were projected (benchmarks/projection.py).
PROJECTED_MODEL_ERROR = 0.2
# How fast a network loses what fine-tuning gains when more and more of its layers stay as they are.
CUT_POWER = 4
# What a forecast starts from.
LINEAR_PROBE = "a linear probe"
ALL_LAYERS = "a linear probe on all layers"
SOME_LAYERS = "linear probes on the last and on all layers"
LOGITS_PROBE = "a linear probe of the logits"  # the features were not found: a lower bound, as the next one
EMPIRICAL_PREDICTOR = "the expected empirical predictor"


def logit(p: float, n: int) -> float:
    """Return the logit of a proportion of n rows; half a row is added to both sides, so it is finite at 0 and 1."""
    return math.log((p * n + 0.5) / ((1 - p) * n + 0.5))


def from_logit(value: float, n: int) -> float:
    """Return the inverse of :func:`logit`, clipped to 0..1; infinite values are allowed."""
    return min(1.0, max(0.0, (sigmoid(value) * (n + 1) - 0.5) / n))


def sigmoid(value: float) -> float:
    """Return the proportion whose logit is ``value``."""
    return 0.5 * (1 + math.tanh(value / 2))


def model_error(report: TransferabilityReport, trainable: str, anchor: str) -> float:
    """Return the standard deviation of logit(achieved) - logit(anchor) without sampling error."""
    if anchor in (ALL_LAYERS, SOME_LAYERS):
        is_projected = any(layer.kept_width < layer.width for layer in report.layers)
        return PROJECTED_MODEL_ERROR if is_projected else LAYERS_MODEL_ERROR
    return HEAD_MODEL_ERROR if trainable == "head" else OTHER_MODEL_ERROR


class Feature(NamedTuple):
    """A quantity, in nats or logits, that may explain the gap between probe and achieved accuracy."""

    value: Callable[[TransferabilityReport, float], float]
    show: Callable[[float], str]


CLASSES = Feature(lambda r, _: math.log(r.num_target_classes), lambda v: f"{math.exp(v):.0f} classes")
# LEEP above its floor -H(Y): LEEP itself mostly reflects the number of classes.
TRANSFER_FEATURES = (
    Feature(lambda _, base: base, lambda v: f"accuracy {sigmoid(v):.2f} before training"),
    CLASSES,
    Feature(lambda r, _: math.log(r.num_samples / r.num_target_classes), lambda v: f"{math.exp(v):.1f} rows a class"),
    Feature(lambda r, _: or_nan(r.leep) - r.floor, lambda v: f"LEEP {v:.2f} above its floor"),
    Feature(
        lambda r, _: or_nan(r.leave_one_out_leep) - r.leave_one_out_floor,
        lambda v: f"leave-one-out LEEP {v:.2f} above its floor",
    ),
)
# Training from scratch does not use the source.
SCRATCH_FEATURES = (CLASSES, Feature(lambda r, _: math.log(r.num_samples), lambda v: f"{math.exp(v):.0f} rows"))


def point_features(trainable: str) -> tuple[Feature, ...]:
    """Return the features that may explain the achieved accuracy."""
    return SCRATCH_FEATURES if trainable == "scratch" else TRANSFER_FEATURES


@dataclass(frozen=True)
class TransferPoint:
    """A transfer as the regression sees it."""

    anchor: str  #: whose accuracy p a history corrects (:func:`anchor_of`); empty from scratch, where p = 1/2
    accuracy: float  #: p
    base: float  #: the logit of p
    num_samples: int  #: rows n that p was measured on
    test_size: int  #: rows m in each validation; n if unknown
    model_error: float  #: :math:`\tau`, of :func:`model_error`
    #: Expected size of logit(achieved) - base, :math:`\sqrt{(1/n + 1/m) / (p (1 - p)) + \tau^2}`; without 1/n for
    #: training from scratch, where p was not measured.
    scale: float
    features: Array  #: values of :func:`point_features`, ``[p]``; NaN where a score is missing

    @classmethod
    def of(
        cls, report: TransferabilityReport, test_size: int | None, trainable: str, trained_from: str = ""
    ) -> "TransferPoint | None":
        """Return the point of a report; None if the report has no accuracy to start from."""
        n, anchor, accuracy, base, sampling = report.num_samples, "", 0.5, 0.0, 0.0
        if trainable != "scratch":
            anchor, accuracy = anchor_of(report, trainable, trained_from)
            if not math.isfinite(accuracy):
                return None
            n = n if anchor == EMPIRICAL_PREDICTOR else report.linear_probe_samples or n
            base, sampling = logit(accuracy, n), 1 / n
        m = n if test_size is None else test_size
        tau = model_error(report, trainable, anchor)
        variance = (sampling + 1 / m) / (sigmoid(base) * sigmoid(-base)) + tau**2
        features = np.array([feature.value(report, base) for feature in point_features(trainable)], dtype=float)
        return cls(anchor, accuracy, base, n, m, tau, math.sqrt(variance), features)


def anchor_of(report: TransferabilityReport, trainable: str, trained_from: str = "") -> tuple[str, float]:
    r"""Return what a forecast starts from, by name, and its accuracy p; NaN if it could not be computed.

    Training a head can use the features of the last layer alone. Fine-tuning all layers can use those of all of them;
    if these were projected, the logit of that p gains what the probe on the head's own features lost by it.
    Training from the k-th of L layers on lies between the two:
    :math:`\operatorname{logit} p = (1 - w) \operatorname{logit} p_{head} + w \operatorname{logit} p_{all}` with
    :math:`w = 1 - (k / L)^4`, where k counts the layers that stay as they are; :math:`w = 1/2` if ``trained_from`` is
    neither one of ``report.layers`` nor a module that holds one.
    """
    head, together = report.linear_probe_accuracy, report.multi_layer_probe_accuracy
    n = report.linear_probe_samples or report.num_samples
    if trainable not in ("head", "scratch") and _is_known(together):
        kept = next((s.probe_accuracy for s in report.layers if s.feeds_head and s.kept_width < s.width), None)
        if _is_known(head) and _is_known(kept) and kept < head:
            together = from_logit(logit(together, n) + logit(head, n) - logit(kept, n), n)
        if trainable != "part":
            return ALL_LAYERS, float(together)
        if _is_known(head):
            share = frozen_share(report, trained_from) if trained_from else None
            w = 0.5 if share is None else 1 - share**CUT_POWER
            return SOME_LAYERS, sigmoid((1 - w) * logit(head, n) + w * logit(together, n))
    if _is_known(head):
        return LOGITS_PROBE if report.feature_layer == LOGITS else LINEAR_PROBE, float(head)
    return EMPIRICAL_PREDICTOR, or_nan(report.eep_accuracy)


def _is_known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def frozen_share(report: TransferabilityReport, trained_from: str) -> float | None:
    """Return the share of the layers of a report that come before one of them; None if it has no such layer."""
    wanted = f"{trained_from}."
    names = [f"{layer.name}." for layer in report.layers]
    places = [place for place, name in enumerate(names) if name.startswith(wanted) or wanted.startswith(name)]
    return places[0] / len(names) if places else None


def describe_outside(trainable: str, features: Array, x: Array) -> str:
    """Return a sentence on what is unusual about features ``[p]`` compared with those of the records ``[n, p]``."""
    parts = []
    for feature, value, column in zip(point_features(trainable), features, x.T, strict=True):
        seen = np.sort(column[~np.isnan(column)])
        if len(seen) == 0 or math.isnan(value):
            continue
        if value < seen[0]:
            parts.append(f"{feature.show(value)} (least in the history: {feature.show(seen[0])})")
        elif value > seen[-1]:
            parts.append(f"{feature.show(value)} (most in the history: {feature.show(seen[-1])})")
    what = ", ".join(parts) or "an unusual combination of scores and sizes"
    return f"Unlike nearly every transfer in the history: {what}."
