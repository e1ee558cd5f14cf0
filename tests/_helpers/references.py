"""Independent float64 references from the papers, and random tasks. No code of the library is used here."""

import math
from collections import Counter
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor


def to_numpy(values: Any) -> np.ndarray:
    """Float64 array of a tensor or array of any floating-point type."""
    return values.detach().double().numpy() if isinstance(values, Tensor) else np.asarray(values, dtype=np.float64)


def reference_softmax(logits: Any) -> np.ndarray:
    """Softmax over dimension 1 in float64."""
    logits = to_numpy(logits)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def reference_conditional(theta: Any, labels: Any, num_target_classes: int) -> np.ndarray:
    """P(y|z) of Nguyen et al. 2020, equation 1 and the line after it, a row at a time."""
    theta, labels = to_numpy(theta), np.asarray(labels)
    joint = np.zeros((num_target_classes, theta.shape[1]))
    for row, label in zip(theta, labels, strict=True):
        joint[label] += row / len(labels)
    marginal = joint.sum(axis=0)
    conditional = np.zeros_like(joint)
    conditional[:, marginal > 0] = joint[:, marginal > 0] / marginal[marginal > 0]
    return conditional


def reference_leep(theta: Any, labels: Any, num_target_classes: int) -> float:
    """LEEP of source distributions ``theta [n, Z]``: Nguyen et al. 2020, equation 2, summed exactly."""
    conditional = reference_conditional(theta, labels, num_target_classes)
    theta, labels = to_numpy(theta), np.asarray(labels)
    logs = [
        math.log(math.fsum(float(conditional[y, z]) * float(row[z]) for z in range(len(row))))
        for row, y in zip(theta, labels, strict=True)
    ]
    return math.fsum(logs) / len(logs)


def reference_eep_accuracy(theta: Any, labels: Any, num_target_classes: int) -> float:
    """Share of rows whose label has the highest EEP; a label that ties with others counts 1 / (number tied)."""
    eep = to_numpy(theta) @ reference_conditional(theta, labels, num_target_classes).T
    tied = np.isclose(eep, eep.max(axis=1, keepdims=True), rtol=1e-11, atol=0.0)
    return float(np.mean(tied[np.arange(len(eep)), np.asarray(labels)] / tied.sum(axis=1)))


def reference_leave_one_out(theta: Any, labels: Any, num_target_classes: int, prior_weight: float = 1.0) -> np.ndarray:
    """``[n, C]``: the EEP of each row from a joint of the other rows, summed anew for every row.

    q_i(y) = sum_z theta_i(z) (J_-i(y, z) + a pi_-i(y)) / (J_-i(z) + a), pi_-i the class frequencies of the others.
    """
    theta, labels = to_numpy(theta), np.asarray(labels)
    q = np.zeros((len(labels), num_target_classes))
    for i in range(len(labels)):
        rows, others = np.delete(theta, i, axis=0), np.delete(labels, i)
        joint = np.stack([rows[others == k].sum(axis=0) for k in range(num_target_classes)])
        prior = np.bincount(others, minlength=num_target_classes) / len(others)
        q[i] = (joint + prior_weight * prior[:, None]) / (joint.sum(axis=0) + prior_weight) @ theta[i]
    return q


def reference_eep_scores(theta: Any, labels: Any, num_target_classes: int) -> dict[str, float]:
    """LEEP, its leave-one-out form and the EEP's accuracy, with the standard error of each mean over rows."""
    theta, y = to_numpy(theta), np.asarray(labels)
    rows, counted = np.arange(len(y)), np.bincount(y)[y] > 1
    eep = theta @ reference_conditional(theta, y, num_target_classes).T
    scores = {
        "leep": np.log(eep[rows, y]),
        "leave_one_out_leep": np.log(reference_leave_one_out(theta, y, num_target_classes)[rows, y][counted]),
        "eep_accuracy": (eep.argmax(axis=1) == y).astype(float),
    }
    errors = {f"{name}_standard_error": s.std(ddof=1) / np.sqrt(len(s)) for name, s in scores.items()}
    return {name: s.mean() for name, s in scores.items()} | errors


def has_near_ties(theta: Any, labels: Any, num_target_classes: int) -> bool:
    """Whether two classes are so nearly equal in the EEP of some row that rounding decides if they are tied."""
    eep = to_numpy(theta) @ reference_conditional(theta, labels, num_target_classes).T
    gap = 1 - eep / eep.max(axis=1, keepdims=True)
    return bool(((gap > 1e-13) & (gap < 1e-10)).any())


def reference_nce(source_labels: Any, labels: Any) -> float:
    """-H(Y|Z) of the counts (Tran, Nguyen, Hassner 2019, equation 4)."""
    pairs = list(zip(np.asarray(source_labels).tolist(), np.asarray(labels).tolist(), strict=True))
    mass, count = Counter(z for z, _ in pairs), Counter(pairs)
    return math.fsum(k * math.log(k / mass[z]) for (z, _), k in count.items()) / len(pairs)


def label_entropy(labels: Any) -> float:
    """H(Y) of the label frequencies in nats."""
    labels = np.asarray(labels).tolist()
    return -math.fsum(labels.count(y) / len(labels) * math.log(labels.count(y) / len(labels)) for y in set(labels))


def random_task(n: int, num_source: int, num_target: int, seed: int = 0, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Float32 logits ``[n, Z]`` that know something of their labels ``[n]``."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_target, (n,), generator=generator)
    logits = torch.randn(n, num_source, generator=generator) * scale
    logits[torch.arange(n), labels % num_source] += scale
    return logits, labels


@st.composite
def tasks(draw: st.DrawFn, min_rows: int = 2) -> tuple[Tensor, Tensor, int]:
    """``(theta [n, Z] float64, labels [n], C)``: any mix of soft and one-hot rows, silent and repeated classes."""
    n, z, c = draw(st.integers(min_rows, 12)), draw(st.integers(1, 6)), draw(st.integers(1, 5))
    logits = draw(hnp.arrays(np.float64, (n, z), elements=st.floats(-40, 40, width=32)))
    switched_off = draw(hnp.arrays(np.bool_, z))
    switched_off[draw(st.integers(0, z - 1))] = False
    theta = reference_softmax(np.where(switched_off, -np.inf, logits))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, c - 1)))
    return torch.from_numpy(theta), torch.from_numpy(labels), c
