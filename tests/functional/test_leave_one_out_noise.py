"""Leave-one-out LEEP: exact, and at or below the floor on labels that the source knows nothing of."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_leep import EEPScores, LEEPMetric
from lightning_leep.functional import leep
from lightning_leep.functional.leep import (
    conditional_probability,
    eep_likelihood,
    joint_probability,
    leave_one_out_likelihood,
)
from tests._helpers.references import label_entropy, random_task, reference_leave_one_out, tasks


def closed_form(theta, labels, num_target_classes, prior_weight=1.0):
    theta, labels = torch.as_tensor(theta), torch.as_tensor(labels)
    counts = torch.bincount(labels, minlength=num_target_classes)
    joint = joint_probability(theta, labels, num_target_classes)
    return leave_one_out_likelihood(theta, labels, joint, counts, prior_weight).numpy()


@settings(max_examples=40, deadline=None)
@given(task=tasks(), prior_weight=st.sampled_from([0.1, 1.0, 5.0]))
def test_equals_a_joint_summed_anew_for_every_row(task, prior_weight):
    theta, labels, num_target_classes = task
    labels = labels.numpy()
    q = reference_leave_one_out(theta.numpy(), labels, num_target_classes, prior_weight)
    np.testing.assert_allclose(q.sum(axis=1), 1.0, rtol=1e-12)  # it is a distribution over the classes
    counted = np.bincount(labels)[labels] > 1
    expected = q[np.arange(len(labels)), labels]
    assert (expected[~counted] == 0).all()  # nothing is known of a class without another row: left out, not -inf
    likelihood = closed_form(theta, labels, num_target_classes, prior_weight)
    np.testing.assert_allclose(likelihood, expected[counted], rtol=1e-9)
    assume(counted.sum() >= 2 and prior_weight == 1.0)
    value = leep(theta, torch.as_tensor(labels), num_target_classes, from_logits=False, leave_one_out=True).item()
    assert value == pytest.approx(np.log(expected[counted]).mean(), rel=1e-9, abs=1e-12)


def test_rows_that_are_the_only_one_of_their_class_are_left_out():
    theta = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    labels = np.array([0, 0, 1, 2])
    # By hand for row 0: the others hold J = [[.6, .4], [.3, .7], [.2, .8]], J(z) = [1.1, 1.9], pi_-0(0) = 1/3.
    first = 0.9 * (0.6 + 1 / 3) / 2.1 + 0.1 * (0.4 + 1 / 3) / 2.9
    second = 0.6 * (0.9 + 1 / 3) / 2.4 + 0.4 * (0.1 + 1 / 3) / 2.6
    np.testing.assert_allclose(closed_form(theta, labels, 4), [first, second], rtol=1e-14)
    metric = LEEPMetric(4, 2, from_logits=False, leave_one_out=True)
    metric.update(torch.tensor(theta), torch.tensor(labels))
    assert metric.compute().item() == pytest.approx((math.log(first) + math.log(second)) / 2, rel=1e-12)
    assert metric.total_scores()[0].tolist() == [2]


# -- noise -------------------------------------------------------------------------------------------------------------

SOURCES = ("soft", "confident", "one-hot")


def noise(n, num_source_classes, kind, seed, num_target_classes=100):
    """Outputs of a source and labels that have nothing to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, num_source_classes, generator=generator) * (1.0 if kind == "soft" else 10.0)
    labels = torch.randint(num_target_classes, (n,), generator=generator)
    theta = logits.softmax(dim=1)
    return torch.eye(num_source_classes)[theta.argmax(dim=1)] if kind == "one-hot" else theta, labels


def scores_of(theta, labels, num_target_classes=100):
    metric = EEPScores(num_target_classes, theta.shape[1], from_logits=False)
    metric.update(theta, labels)
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(("n", "num_source_classes"), [(100, 10), (100, 100), (1000, 100), (1000, 1000)])
def test_noise_stays_at_the_floor(n, num_source_classes, kind, seed):
    theta, labels = noise(n, num_source_classes, kind, seed)
    scores, floor = scores_of(theta, labels), -label_entropy(labels)
    assert scores["leave_one_out_leep"] <= floor + 2 * scores["leave_one_out_leep_standard_error"]
    if kind != "soft" and num_source_classes >= n // 10:  # where plain LEEP deceives, and by how much
        assert scores["leep"] > floor + 0.5
        assert scores["leep"] > floor + 5 * scores["leep_standard_error"]


def test_confident_nonsense_no_longer_beats_soft_knowledge():
    """What plain LEEP gets wrong: the order of a useless confident source and a useful soft one."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (500,), generator=generator)
    useful = torch.randn(500, 1000, generator=generator)
    useful[:, :10] += 4 * torch.eye(10)[labels]
    soft, useless = useful.softmax(dim=1), noise(500, 1000, "confident", seed=1)[0]
    by_kind = {kind: scores_of(theta, labels, 10) for kind, theta in (("useful", soft), ("useless", useless))}
    assert by_kind["useless"]["leep"] > by_kind["useful"]["leep"] + 0.5
    assert by_kind["useful"]["leave_one_out_leep"] > by_kind["useless"]["leave_one_out_leep"]


# -- standard errors ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_standard_error_takes_the_joint_as_given():
    """It is the spread of LEEP over samples scored with one joint; a joint of each sample's own adds to that."""
    preds, target = random_task(20_000, 3, 2, seed=1)
    conditional = conditional_probability(joint_probability(preds.softmax(dim=1), target, 2))
    fixed, own, errors = [], [], []
    for seed in range(200):
        logits, labels = random_task(400, 3, 2, seed + 2)
        theta = logits.softmax(dim=1)
        fixed.append(eep_likelihood(theta, labels, conditional).log().mean().item())
        scores = scores_of(theta, labels, 2)
        own.append(scores["leep"]), errors.append(scores["leep_standard_error"])
    # Spreads over 200 samples are themselves off by 5%.
    assert np.mean(errors) == pytest.approx(np.std(fixed, ddof=1), rel=0.2)
    assert 1.2 * np.mean(errors) < np.std(own, ddof=1) < 2 * np.mean(errors)
