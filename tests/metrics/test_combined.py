"""EEPScores and FeatureScores: what is special to several scores from one state."""

import numpy as np
import pytest
import torch

from lightning_leep import EEPScores, FeatureScores
from tests._helpers.metric_cases import C, D, Z, values_of

NAMES = {"leep", "leave_one_out_leep", "eep_accuracy"}
ALL = NAMES | {f"{name}_standard_error" for name in NAMES}


def test_a_perfect_source():
    """One-hot and right: LEEP 0, never above it; the leave-one-out form pays for what it did not see."""
    metric = EEPScores(4, 6, from_logits=False)
    metric.update(torch.eye(6)[[0, 1, 2, 3] * 25], torch.tensor([0, 1, 2, 3] * 25))
    values = values_of(metric.compute())
    assert (values["leep"], values["eep_accuracy"], values["leep_standard_error"]) == (0.0, 1.0, 0.0)
    # 24 other rows of the class among 99, all of them in the row's own source class: (24 + 24/99) / (24 + 1).
    assert values["leave_one_out_leep"] == pytest.approx(np.log((24 + 24 / 99) / 25), rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "unknown"),
    [
        ([], ALL),
        ([0], ALL),
        ([0, 1], {"leave_one_out_leep", "leave_one_out_leep_standard_error"}),
        ([0, 0], set()),
    ],
)
def test_too_few_rows_are_nan_one_by_one(labels, unknown, recwarn):
    metric = EEPScores(C, Z)
    metric.update(torch.randn(len(labels), Z), torch.tensor(labels, dtype=torch.long))
    values = values_of(metric.compute())
    assert {name for name, value in values.items() if np.isnan(value)} == unknown
    assert bool(recwarn) == bool(unknown)


def test_scores_of_features_need_a_class_of_two_rows_for_the_probe_alone():
    metric = FeatureScores(C, D)
    metric.update(torch.randn(3, D), torch.arange(3))
    values = values_of(metric.compute())
    known = {"h_score", "h_score_unshrunk", "log_me", "linear_probe_samples"}
    assert {name for name, value in values.items() if not np.isnan(value)} == known
    assert values["linear_probe_samples"] == 0
