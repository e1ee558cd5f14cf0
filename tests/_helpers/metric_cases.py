"""Every metric of the library with batches for it and what it must answer: what the tests of the contract run over."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_leep import (
    NLEEP,
    EEPAccuracy,
    EEPScores,
    FeatureScores,
    HScore,
    LEEPMetric,
    LinearProbeAccuracy,
    LogME,
    NearestNeighbourAccuracy,
    NegativeConditionalEntropy,
)
from lightning_leep.functional import nleep
from tests._helpers.feature_references import (
    reference_h_score,
    reference_log_me,
    reference_nearest_neighbours,
    reference_probe,
)
from tests._helpers.references import random_task, reference_eep_scores, reference_nce, reference_softmax

C, Z, D = 3, 7, 5
Batch = tuple[Tensor, Tensor]


class Case(NamedTuple):
    """A metric with its own settings, whether it takes features, and its values by definition."""

    metric: type
    settings: dict[str, Any]
    of_features: bool
    reference: Callable[[np.ndarray, np.ndarray], float | dict[str, float]]


def _eep(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda logits, y: reference_eep_scores(reference_softmax(logits), y, C)[name]


def _feature_scores(features: np.ndarray, y: np.ndarray) -> dict[str, float]:
    return reference_probe(features, y) | {
        "h_score": reference_h_score(features, y, shrinkage=True),
        "h_score_unshrunk": reference_h_score(features, y, shrinkage=False),
        "log_me": reference_log_me(features, y),
    }


CASES = {
    "leep": Case(LEEPMetric, {}, False, _eep("leep")),
    "leave_one_out_leep": Case(LEEPMetric, {"leave_one_out": True}, False, _eep("leave_one_out_leep")),
    "eep_accuracy": Case(EEPAccuracy, {}, False, _eep("eep_accuracy")),
    "eep_scores": Case(EEPScores, {}, False, lambda logits, y: reference_eep_scores(reference_softmax(logits), y, C)),
    "nce": Case(NegativeConditionalEntropy, {}, False, lambda logits, y: reference_nce(logits.argmax(axis=1), y)),
    "h_score": Case(HScore, {}, True, lambda x, y: reference_h_score(x, y, shrinkage=True)),
    "h_score_plain": Case(HScore, {"shrinkage": False}, True, lambda x, y: reference_h_score(x, y, shrinkage=False)),
    "log_me": Case(LogME, {}, True, reference_log_me),
    "linear_probe": Case(LinearProbeAccuracy, {}, True, lambda x, y: reference_probe(x, y)["linear_probe_accuracy"]),
    "nearest_neighbours": Case(NearestNeighbourAccuracy, {}, True, reference_nearest_neighbours),
    "feature_scores": Case(FeatureScores, {}, True, _feature_scores),
    # Its mixture has no reference of a few lines; test_nleep.py compares the function with scikit-learn.
    "nleep": Case(
        NLEEP,
        {"num_components": 3},
        True,
        lambda x, y: nleep(torch.tensor(x), torch.tensor(y), C, num_components=3).item(),
    ),
}
OUTPUTS = [name for name, case in CASES.items() if not case.of_features]
FEATURES = [name for name, case in CASES.items() if case.of_features]
every = pytest.mark.parametrize("name", CASES)
#: One metric of each kind of state, for what does not depend on the score that is made of it.
STATES = ["leep", "nce", "log_me", "feature_scores", "nearest_neighbours", "nleep"]
each_state = pytest.mark.parametrize("name", STATES)
#: N-LEEP's mixtures need not converge here.
may_not_converge = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
#: Those that score rows, so that they keep them or read them twice.
TWO_PASS = ["leep", "leave_one_out_leep", "eep_accuracy", "eep_scores", "linear_probe", "feature_scores"]


#: What is wrong with a batch of rows and labels, the error and what it says.
WRONG_BATCHES = (
    (lambda rows, y: (rows, y.clone().fill_(C)), ValueError, r"labels in 0\.\.2"),
    (lambda rows, y: (rows, y.clone().fill_(-100)), ValueError, "got -100.*`ignore_index"),
    (lambda rows, y: (rows, y.double()), TypeError, "integer class labels, got torch.float64"),
    (lambda rows, y: (rows, y > 0), TypeError, "integer class labels, got torch.bool"),
    (lambda rows, y: (rows, y.unsqueeze(1)), ValueError, "`target` must have shape"),
    (lambda rows, y: (rows, y[1:]), ValueError, "`target` must have shape"),
    (lambda rows, y: (rows[:, 1:], y), ValueError, "dimension 1"),
    (lambda rows, y: (rows[:, 0], y), ValueError, r"must have shape \[N, "),
    (lambda rows, y: (rows.long(), y), TypeError, "floating point, got torch.int64"),
    (lambda rows, y: (rows * 1j, y), TypeError, "floating point, got torch.complex"),
    (lambda rows, y: (rows.tolist(), y), TypeError, "must be a torch.Tensor, got list"),
    (lambda rows, y: (rows, y.tolist()), TypeError, "`target` must be a torch.Tensor, got list"),
    (lambda rows, y: (rows, y[0]), ValueError, "`target` must have shape"),
    (lambda rows, y: (rows.T.reshape(1, -1, 1, 9), y.reshape(1, 9, 1)), ValueError, r"must have shape \[1, 1, 9\]"),
    (lambda rows, y: (rows.clone().fill_(torch.nan), y), ValueError, "finite"),
    (lambda rows, y: (rows.clone().fill_(torch.inf), y), ValueError, "finite"),
)


def build(name: str, **kwargs: Any) -> Any:
    """The metric, not yet updated."""
    case = CASES[name]
    return case.metric(C, D if case.of_features else Z, **case.settings, **kwargs)


@functools.cache
def batch(name: str, n: int, seed: int = 0, mean: float = 0.0) -> Batch:
    """Float64 input and labels; labels of features are wrong in 1 of 8 rows of groups far apart, for N-LEEP's sake."""
    if not CASES[name].of_features:
        logits, labels = random_task(n, Z, C, seed)
        return logits.double(), labels
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(C, (n,), generator=generator)
    wrong = torch.rand(n, generator=generator) < 0.12
    features = torch.randn(n, D, generator=generator, dtype=torch.float64) + 20 * torch.eye(C, D)[group] + mean
    return features, torch.where(wrong, (group + 1) % C, group)


def joined(*batches: Batch) -> Batch:
    """One batch of the rows of several."""
    rows, labels = zip(*batches, strict=True)
    return torch.cat(rows), torch.cat(labels)


def fill(metric: Any, *batches: Batch) -> Any:
    """The metric, updated with each batch."""
    for rows, labels in batches:
        metric.update(rows, labels)
    return metric


def filled(name: str, *batches: Batch, **kwargs: Any) -> Any:
    """A new metric, updated with each batch."""
    return fill(build(name, **kwargs), *batches)


def values_of(result: Any) -> dict[str, float]:
    """The numbers of a result of ``compute``, by name; a single one has the name ``value``."""
    items = result.items() if isinstance(result, dict) else [("value", result)]
    return {key: value.item() for key, value in items}


@functools.cache
def _by_definition(name: str, rows: bytes, labels: bytes) -> dict[str, float]:
    """The references are slow, and many tests ask for the values of the same rows."""
    y = np.frombuffer(labels, np.int64)
    result = CASES[name].reference(np.frombuffer(rows).reshape(len(y), -1), y)
    return result if isinstance(result, dict) else {"value": result}


def expected(name: str, *batches: Batch, rel: float = 1e-9) -> dict[str, Any]:
    """What ``values_of`` must give for the rows of all batches."""
    rows, labels = joined(*batches)
    values = _by_definition(name, rows.double().numpy().tobytes(), labels.numpy().tobytes())
    return {key: pytest.approx(value, rel=rel, abs=1e-11) for key, value in values.items()}


def batches_of(name: str) -> list[Batch]:
    """Three batches of different sizes."""
    return [batch(name, n, seed) for seed, n in enumerate((30, 21, 24))]
