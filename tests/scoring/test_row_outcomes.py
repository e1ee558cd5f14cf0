"""Outcomes of single rows: those of the function, in the order of the data, however the rows are kept and divided."""

import numpy as np
import pytest
import torch

from lightning_leep import score_outputs
from lightning_leep.functional import linear_probe
from lightning_leep.metrics import linear_probe as metric_module
from lightning_leep.records.row_outcomes import labels_checksum
from lightning_leep.scoring import ScoringOptions
from tests._helpers.distributed import run_processes

C = 3


def rows(n=70, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(C, (n,), generator=generator)
    features = torch.randn(n, 6, generator=generator) + 1.5 * torch.eye(C, 6)[target]
    return features, target


def scored(features, target, **options):
    chosen = ScoringOptions(**options)
    layers = {"all of it": features, "half": features[:, :3]} if features.ndim == 2 else None
    return score_outputs(features, target, C, features=features, layers=layers, options=chosen)


def assert_outcomes(found, features, target):
    expected = linear_probe(features, target, C)
    for rows, exact in ((found.correct, expected.row_correct), (found.log_likelihood, expected.row_log_likelihood)):
        assert rows == pytest.approx(exact.half().tolist(), rel=1e-3, nan_ok=True)  # half precision rounds at 5e-4
    assert found.labels == labels_checksum(target.tolist())


@pytest.mark.parametrize("memory", ["device", "cpu", "second_pass"])
def test_they_are_those_of_the_function(memory):
    features, target = rows()
    report = scored(features, target, memory=memory, num_permutations=0)
    assert_outcomes(report.linear_probe_rows, features, target)
    assert_outcomes(report.multi_layer_probe_rows, torch.cat([features, features[:, :3]], dim=1), target)
    assert np.mean(report.multi_layer_probe_rows.correct) == pytest.approx(report.multi_layer_probe_accuracy)


def test_fewer_rows_than_features_and_a_row_alone_in_its_class():
    features, target = rows(12)
    target = torch.tensor([0, 1] * 5 + [2, 0])
    wide = torch.cat([features, torch.randn(12, 30, generator=torch.Generator().manual_seed(1))], dim=1)
    found = scored(wide, target).linear_probe_rows
    assert_outcomes(found, wide, target)
    assert np.isnan(found.correct[10])


def test_many_rows_are_not_kept(monkeypatch):
    monkeypatch.setattr(metric_module, "MAX_ROW_OUTCOMES", 69)
    report = scored(*rows())
    assert report.linear_probe_rows is None
    assert report.multi_layer_probe_rows is None
    assert report.linear_probe_accuracy is not None


def on_three(rank, world_size):
    """The reports of a process that has every third image: in two ways, and of pixels."""
    return [scored(features[rank::3], target[rank::3], **options) for features, target, options in divided()]


def divided():
    """Uneven shares, rows without a label on some of them; pixels of an image, which stay together."""
    features, target = rows(71)
    target[5:20:3] = -100
    generator = torch.Generator().manual_seed(3)
    classes = torch.randint(C, (5, 4), generator=generator)
    pixels = torch.randn(5, 6, 4, generator=generator) + torch.eye(C, 6)[classes].movedim(2, 1)
    options = {"num_permutations": 0, "ignore_index": -100}
    return [(features, target, {"memory": memory} | options) for memory in ("device", "second_pass")] + [
        (pixels, classes, options)
    ]


@pytest.mark.distributed
def test_processes_give_the_order_of_the_data():
    by_rank = run_processes(on_three, 3)
    for place, (features, target, options) in enumerate(divided()):
        alone = scored(features, target, **options)
        flat, labels = features.movedim(1, -1).reshape(-1, 6), target.flatten()
        assert_outcomes(alone.linear_probe_rows, flat[labels >= 0], labels[labels >= 0])
        for reports in by_rank:
            for name in ("linear_probe_rows", "multi_layer_probe_rows"):
                found, expected = getattr(reports[place], name), getattr(alone, name)
                if features.ndim > 2 and name == "multi_layer_probe_rows":
                    assert found is expected is None  # dense prediction has no layers
                    continue
                assert found.labels == expected.labels
                assert found.correct == pytest.approx(expected.correct)
                assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-3)
