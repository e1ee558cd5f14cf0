"""Every score of a scoring pass, with its standard error and its null distribution, against its definition."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_leep.functional import h_score, leep, linear_probe, log_me, nce, nleep
from tests._helpers.small_network import C, Z, run


def test_every_score_from_one_pass(source, data):
    """The source runs once for each batch, and each score is that of its function on all rows."""
    calls, hidden = [], []
    source[2].register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    source[4].register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
    report = run(source, data, nleep=True)
    assert calls == [32, 32, 26]
    images, labels = data.tensors
    with torch.no_grad():
        logits = source.eval()(images)
    features, preds = torch.cat(hidden[:3]).double(), logits.double()
    probe = linear_probe(features, labels, C)
    expected = {
        "leep": leep(preds, labels, C),
        "leave_one_out_leep": leep(preds, labels, C, leave_one_out=True),
        "nce": nce(preds, labels, C),
        "h_score": h_score(features, labels, C),
        "h_score_unshrunk": h_score(features, labels, C, shrinkage=False),
        "log_me": log_me(features, labels, C),
        "linear_probe_accuracy": probe.accuracy,
        "linear_probe_accuracy_standard_error": probe.standard_error,
        "linear_probe_balanced_accuracy": probe.balanced_accuracy,
        "linear_probe_log_likelihood": probe.log_likelihood,
        "linear_probe_samples": probe.num_rows,
        "linear_probe_shrinkage": probe.shrinkage,
        "nleep": nleep(features, labels, C),
    }
    found = {name: getattr(report, name) for name in expected}
    assert found == {name: pytest.approx(value.item(), rel=1e-5) for name, value in expected.items()}
    assert report.linear_probe_class_accuracy == pytest.approx(tuple(probe.class_accuracy.tolist()), rel=1e-9)
    assert report.largest_class_rate == max(labels.bincount()).item() / 90
    assert (report.num_target_classes, report.num_source_classes) == (C, Z)
    assert report.samples_per_second == pytest.approx(90 / report.seconds)
    joint = torch.stack([preds.softmax(1)[labels == y].sum(0) for y in range(C)])
    torch.testing.assert_close(report.joint, joint, rtol=1e-5, atol=1e-6)
    assert (report.feature_layer, report.num_features) == ("4", 16)
    scores = {f.name for f in dataclasses.fields(report)} - {"joint"}
    assert [name for name in scores if getattr(report, name) is None] == []  # every field is filled


def test_scores_of_features_may_be_left_out(source, data):
    whole, report = run(source, data), run(source, data, feature_scores=False)
    assert (report.feature_layer, report.num_features, report.h_score, report.linear_probe_accuracy) == (None,) * 4
    assert report.linear_probe_class_accuracy is None
    assert not any("feature" in note for note in report.notes)
    for name in ("leep", "leave_one_out_leep", "nce", "permutation_mean", "eep_accuracy"):
        assert getattr(report, name) == getattr(whole, name)


def test_permutation_null_of_the_report(source, data):
    report = run(source, data, num_permutations=200)
    images, labels = data.tensors
    with torch.no_grad():
        theta = source.eval()(images).softmax(1).double().numpy()

    def dense(y):
        joint = np.stack([theta[y == k].sum(0) for k in range(C)])
        return np.log(((joint / joint.sum(0))[y] * theta).sum(1)).mean()

    rng = np.random.default_rng(5)
    null = np.array([dense(rng.permutation(labels.numpy())) for _ in range(2000)])
    assert report.permutation_mean == pytest.approx(null.mean(), abs=4 * null.std() / np.sqrt(200))
    assert report.permutation_standard_deviation == pytest.approx(null.std(), rel=0.25)
    p = (null >= report.leep).mean()
    assert report.permutation_p_value == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 200) + 1 / 201)
    assert 0.02 < p < 0.98  # a p-value that could be anything


def test_no_permutations_and_no_nleep(source, data):
    report = run(source, data, num_permutations=0)
    assert (report.permutation_mean, report.permutation_p_value, report.nleep) == (None, None, None)
    assert not any("N-LEEP" in note for note in report.notes)


class Overflow(nn.Module):
    """One feature of one row is not finite, while the outputs are."""

    def __init__(self, value):
        super().__init__()
        self.value, self.mid = value, nn.Linear(5, 6, dtype=torch.float64)
        self.fc = nn.Linear(6, Z, dtype=torch.float64)

    def forward(self, x):
        x = torch.where(x == MARK, self.value, x.double())
        return self.fc(self.mid(x).nan_to_num(0.0).clamp(-3, 3))


MARK = 7.25


@pytest.mark.parametrize(("memory", "value"), [("device", torch.inf), ("cpu", torch.nan), ("second_pass", 1e80)])
def test_features_that_are_not_finite_take_no_other_score_with_them(data, memory, value):
    images, labels = data.tensors
    images[40, 2] = MARK
    source = Overflow(value)
    report = run(source, data, head="mid", memory=memory, nleep=memory != "second_pass")
    of_features = {f.name for f in dataclasses.fields(report) if f.name.startswith(("h_score", "log_me", "linear"))}
    expected = dict.fromkeys(of_features, None) | {"linear_probe_samples": 0}
    assert {name: getattr(report, name) for name in of_features} == expected
    assert any("some features are NaN, infinite, or too large" in note for note in report.notes)
    with torch.no_grad():
        preds = source(images)
    assert report.leep == pytest.approx(leep(preds, labels, C).item(), abs=1e-9)
    assert report.nce == pytest.approx(nce(preds, labels, C).item(), abs=1e-9)


def test_missing_scikit_learn_is_said_before_the_pass(source, data, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as Python marks what cannot be imported
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    calls = []
    source.register_forward_hook(lambda module, inputs, output: calls.append(1))
    with pytest.raises(ModuleNotFoundError, match=r"N-LEEP needs scikit-learn .*pip install lightning-leep\[nleep\]"):
        run(source, data, nleep=True)
    assert calls == []
    assert run(source, data).nleep is None


def test_too_few_images_for_the_mixture_of_nleep(source, data):
    few, enough = (TensorDataset(*(tensor[:n] for tensor in data.tensors)) for n in (19, 20))
    report = run(source, few, nleep=True)
    assert report.nleep is None
    assert any("5 C = 20 Gaussians" in note for note in report.notes)
    assert run(source, enough, nleep=True).nleep is not None
