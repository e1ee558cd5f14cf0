"""Nearest neighbours against a reference in a few lines, and the sample that they are looked for in."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_leep.functional import nearest_neighbour_accuracy
from lightning_leep.functional.nearest_neighbour import balanced_sample
from tests._helpers.feature_references import reference_nearest_neighbours

C = 4


def rows(n, seed=0, d=6, signal=1.0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, C, n)
    return rng.normal(size=(n, d)) + signal * np.eye(C, d)[target], target


def found(features, target, **kwargs):
    return nearest_neighbour_accuracy(torch.from_numpy(features), torch.from_numpy(target), C, **kwargs).item()


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 60), st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 5.0]), st.booleans())
def test_reference(n, seed, signal, on_a_grid):
    """On a grid many rows are equally near."""
    features, target = rows(n, seed, 3, signal)
    target[:2] = 0
    if on_a_grid:
        features = features.round() + 5.0
    elif seed % 2:
        features = features + 1e4  # all rows point nearly the same way
    assert found(features, target) == pytest.approx(reference_nearest_neighbours(features, target), abs=1e-12)


def test_more_rows_than_are_looked_up_at_once():
    features, target = rows(600)
    assert found(features, target) == pytest.approx(reference_nearest_neighbours(features, target))


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_lengths_and_order_do_not_matter(seed, scale):
    features, target = rows(30, seed)
    order = np.random.default_rng(seed).permutation(30)
    lengths = np.random.default_rng(seed).uniform(0.5, 2, size=(30, 1))
    assert found(features, target) == pytest.approx(found(scale * (lengths * features)[order], target[order]))


def test_by_hand():
    """Three directions; the row alone in its class votes and is not counted."""
    features = np.array([[1.0, 0.0], [2.0, 0.1], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [0.1, 2.0], [-1.0, -1.0]])
    target = np.array([0, 0, 0, 1, 1, 1, 2])
    # Of the five nearest of a row two are of its own class and three of the other.
    assert found(features, target) == 0.0
    assert found(features[[0, 1, 3, 4]], target[[0, 1, 3, 4]]) == 0.0  # one own, two others
    assert found(np.ones((4, 2)), np.array([0, 0, 0, 1])) == pytest.approx(1.0)
    assert found(np.zeros((4, 2)), np.array([0, 0, 1, 1])) == pytest.approx(0.0)


def test_rows_of_zeros_are_nearer_than_orthogonal_rows_and_nearest_to_each_other():
    """The neighbours of an axis are the five zeros; those of a zero the other zeros and, equally near, all axes."""
    features = np.concatenate([np.zeros((5, 6)), np.eye(6)])
    target = np.array([0] * 6 + [1] * 5)
    # Axis 0 is right, the others are not; a zero sees 4 + 1 rows of its class and 5 of the other.
    assert found(features, target) == pytest.approx((1 + 5 * 0.5) / 11)


class TestSample:
    def test_as_many_of_each_class(self):
        target = torch.tensor([0] * 50 + [1] * 9 + [2] * 2)
        chosen = balanced_sample(target, torch.randperm(61), 4, 40)
        assert torch.bincount(target[chosen], minlength=4).tolist() == [10, 9, 2, 0]
        chosen = balanced_sample(target, torch.randperm(61), 4, 4)
        assert torch.bincount(target[chosen], minlength=4).tolist() == [2, 2, 2, 0]

    def test_the_smallest_keys_in_their_order(self):
        keys = torch.tensor([5, 3, 9, 1, 7, 2])
        assert balanced_sample(torch.tensor([0, 0, 0, 1, 1, 1]), keys, 2, 4).tolist() == [3, 5, 1, 0]

    def test_another_seed_is_another_sample_of_about_the_same_accuracy(self):
        features, target = rows(3000, signal=2.0)
        values = [found(features, target, max_rows=400, seed=seed) for seed in range(5)]
        assert len(set(values)) > 1
        assert max(values) - min(values) < 0.1
        assert np.mean(values) == pytest.approx(found(features, target, max_rows=3000), abs=0.05)


def test_errors():
    features, target = rows(6)
    with pytest.raises(ValueError, match="needs? a class with at least 2 rows"):
        found(features[:4], np.arange(4))
    with pytest.raises(ValueError, match="`max_rows`"):
        found(features, target, max_rows=0)
    with pytest.raises(ValueError, match="finite"):
        found(features * np.nan, target)
