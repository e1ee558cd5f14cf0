"""Linear probe where classes, rows or variance are missing."""

import numpy as np
import pytest
import torch

from lightning_leep.functional.feature_space import space_of_moments
from lightning_leep.functional.linear_discriminant import SHRINKAGES, linear_discriminant
from lightning_leep.functional.linear_probe import NUM_CANDIDATES, SCALES, linear_probe_result, linear_probe_sums
from lightning_leep.functional.moments import feature_moments, merge_moments
from tests.functional.test_linear_probe import candidates, make, probe


def test_single_image_classes_are_excluded_and_counted():
    """Their rows are not scored, but their class can still win another class's row."""
    features, target = make(40, 30, 2, seed=0, signal=4.0)
    rivals = np.concatenate([features, features[:3]]), np.r_[target, [2, 3, 4]]  # where the first three rows lie
    alone, with_rivals = probe(features, target), probe(*rivals)
    assert (alone.num_rows, alone.num_excluded, alone.num_correct) == (40, 0, 40)
    assert (with_rivals.num_rows, with_rivals.num_excluded) == (40, 3)
    x, y = (torch.from_numpy(part) for part in rivals)
    correct, _ = candidates(linear_probe_sums(x, y, linear_discriminant(space_of_moments(feature_moments(x, y, 5)))))
    assert correct[SHRINKAGES.index(0.3), SCALES.index(1.0)] == 37


def test_result_of_no_scores_is_nan():
    sums = torch.zeros(2 + 5, NUM_CANDIDATES, dtype=torch.float64)
    result = linear_probe_result(sums, torch.tensor([1, 1, 0, 1, 1]))
    for value in (result.accuracy, result.standard_error, result.log_likelihood, result.shrinkage, result.scale):
        assert value.isnan()
    assert result.balanced_accuracy.isnan()
    assert result.class_accuracy.isnan().all()
    assert (result.num_rows, result.num_excluded) == (0, 4)


def test_one_class_is_always_right():
    result = probe(np.random.default_rng(0).normal(size=(6, 3)), np.zeros(6, dtype=int))
    assert result.accuracy == 1
    assert result.log_likelihood == 0


@pytest.mark.parametrize("points", [np.random.default_rng(0).normal(size=(4, 8)), np.eye(4) * 2.0**-10])
def test_classes_that_collapse_to_points(points):
    """No scatter within classes, up to rounding or at all, as after training to the end on few rows."""
    target = np.arange(64) % 4
    result = probe(points[target], target)
    assert result.accuracy == 1
    assert result.log_likelihood.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("distance", [1e8, 1e14])
def test_classes_so_far_apart_that_the_scatter_within_is_rounding(distance):
    """Every candidate still tells them apart."""
    rng, target = np.random.default_rng(0), np.arange(30) % 4
    x = torch.from_numpy(rng.normal(size=(30, 20)) + distance * rng.normal(size=(4, 20))[target])
    y = torch.from_numpy(target)
    correct, _ = candidates(linear_probe_sums(x, y, linear_discriminant(space_of_moments(feature_moments(x, y, 4)))))
    assert torch.all(correct == 30)


@pytest.mark.parametrize("value", [0.0, 1234.5])
def test_constant_features_say_nothing(value):
    """The prediction is the most frequent class; a tie of classes is shared; the log-likelihood is -H(Y)."""
    result = probe(np.full((42, 5), value), np.arange(42) % 3)
    assert result.accuracy.item() == pytest.approx(1 / 3, rel=1e-12)
    assert result.log_likelihood.item() == pytest.approx(-np.log(3), rel=1e-12)
    result = probe(np.full((40, 5), value), np.r_[np.zeros(25, dtype=int), np.ones(15, dtype=int)])
    assert result.accuracy.item() == pytest.approx(25 / 40, rel=1e-12)
    entropy = -(25 * np.log(25 / 40) + 15 * np.log(15 / 40)) / 40
    assert result.log_likelihood.item() == pytest.approx(-entropy, rel=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-9])
def test_rounding_of_a_constant_feature_says_nothing(scale):
    """Shards that disagree about the last digit of its mean, with other classes in each, beside small features."""
    features, target = make(60, 4, 3, seed=5)
    target = np.sort(target)
    sums = []
    for constant in (123456789.123, 0.0):
        x = torch.from_numpy(np.concatenate([features * scale, np.full((60, 1), constant)], axis=1))
        y = torch.from_numpy(target)
        first = feature_moments(x[:25], y[:25], 3)
        second = feature_moments(x[25:], y[25:], 3, centre=first.centre * (1 + 2**-52))
        discriminant = linear_discriminant(space_of_moments(merge_moments(first, second)))
        sums.append(linear_probe_sums(x, y, discriminant))
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("d", [2, 64])
def test_classes_of_one_point_are_told_apart_by_chance(d):
    """Rows that repeat, as features of few values do: rounding must not tell classes 1, 2 and 3 apart: one point."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        target = rng.integers(0, 4, 40)
        counts = np.bincount(target)
        result = probe(rng.normal(size=(2, d))[np.minimum(target, 1)], target)
        # Of the three the largest is named; as many rows are right if several that are equally large share it.
        assert result.num_correct.item() == pytest.approx(counts[0] + counts[1:].max(), rel=1e-12)
        frequency = counts / counts[1:].sum()
        expected = np.where(target == 0, 0.0, np.log(frequency[target])).mean()
        assert result.log_likelihood.item() == pytest.approx(expected, abs=2e-3)
