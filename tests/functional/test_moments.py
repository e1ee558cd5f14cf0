"""Feature moments against two-pass NumPy sums."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_leep.functional.inputs import feature_rows
from lightning_leep.functional.moments import (
    FeatureMoments,
    central_moments,
    empty_moments,
    feature_moments,
    is_constant,
    merge_moments,
    recentre_moments,
    update_moments,
)


def about_mean(moments: FeatureMoments) -> FeatureMoments:
    return recentre_moments(moments, moments.mean)


def make(n, d, C, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, C, n)
    features = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 2 * rng.normal(size=(C, d))[target] + mean
    return features, target


def moments_of(features, target, C, **kwargs) -> FeatureMoments:
    return feature_moments(torch.as_tensor(features), torch.as_tensor(target), C, **kwargs)


def reference(features, target, C, centre) -> FeatureMoments:
    """The definitions, term by term."""
    v = features - centre
    norms = (v**2).sum(1)
    return FeatureMoments(
        torch.as_tensor(centre),
        torch.tensor([(target == k).sum() for k in range(C)]),
        torch.as_tensor(np.stack([v[target == k].sum(0) for k in range(C)])),
        torch.as_tensor(np.einsum("ij,ik->jk", v, v)),
        torch.as_tensor((norms[:, None] * v).sum(0)),
        torch.as_tensor((norms**2).sum()),
    )


def assert_moments_close(actual: FeatureMoments, expected: FeatureMoments, rtol=1e-10):
    """Closeness relative to the size of the terms of each sum, which may cancel."""
    n, size = int(expected.num_rows), float(expected.quartic / expected.num_rows.clamp(min=1)) ** 0.25
    terms = {"class_sums": n * size, "scatter": n * size**2, "cubic": n * size**3}
    for name, a, b in zip(FeatureMoments._fields, actual, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype, name
        assert float((a - b).abs().max()) <= rtol * max(float(b.abs().max()), terms.get(name, 0.0)), name


@pytest.mark.parametrize("centre", [None, 0.7])
def test_fields_are_the_defined_sums(centre):
    features, target = make(50, 4, 3)
    centre = features.mean(0) if centre is None else np.full(4, centre)
    expected = reference(features, target, 4, centre)
    assert_moments_close(moments_of(features, target, 4, centre=torch.as_tensor(centre)), expected)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 40), max_size=5),
    seed=st.integers(0, 2**16),
    mean=st.sampled_from([0.0, -3.0, 1e6]),
    d=st.integers(1, 5),
)
def test_updating_with_and_merging_any_parts_equals_one_shot(cuts, seed, mean, d):
    features, target = make(40, d, 3, seed, mean)
    edges = [0, *sorted(cuts), 40]  # parts may be empty, the first one too
    moments = empty_moments(4, d)
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        rows, labels = torch.as_tensor(features[low:high]), torch.as_tensor(target[low:high])
        if i % 2:
            moments = merge_moments(moments, feature_moments(rows, labels, 4))
        else:
            moments = update_moments(moments, rows, labels)
    # Sums of roundings of a mean of 1e6: 1e-10 in v, relative to the size of v.
    assert_moments_close(about_mean(moments), about_mean(moments_of(features, target, 4)), rtol=1e-8)


def test_central_moments_are_about_the_exact_mean():
    features, target = make(50, 4, 3, mean=1e6)
    moments = moments_of(features, target, 4, centre=torch.full((4,), 1e6 + 2.0, dtype=torch.float64))
    central, mean = central_moments(moments), features.mean(0)
    assert_moments_close(central, reference(features, target, 4, mean), rtol=1e-9)
    assert central.class_sums.sum(dim=0).abs().max() < 1e-12  # those about the rounded mean add up to 50 times 1e-10
    torch.testing.assert_close(moments.mean, torch.as_tensor(mean))


@pytest.mark.parametrize(("digits", "constant"), [(1, True), (100, True), (2000, False)])
def test_features_that_vary_in_the_last_digits_alone_are_constant(digits, constant):
    """By machine epsilons of their mean: a standard deviation of half as many, against 512."""
    features = 1e6 * (1 + digits * 2.0**-52 * (torch.arange(60, dtype=torch.float64) % 2)).unsqueeze(1)
    moments = feature_moments(features, torch.arange(60) % 2, 2)
    central = central_moments(moments)
    assert central.scatter > 0
    assert is_constant(central.scatter.diagonal(), central.centre, central.num_rows).tolist() == [constant]


def test_moments_of_what_is_not_finite_say_so():
    for value in (torch.nan, torch.inf, -torch.inf, 1e80):
        features = torch.tensor([[1.0, 2.0], [value, 0.0]], dtype=torch.float64)
        moments = moments_of(features, torch.tensor([0, 1]), 2)
        assert not moments.is_finite
        assert not about_mean(merge_moments(moments, moments_of(torch.eye(2).double(), torch.arange(2), 2))).is_finite
    assert moments_of(torch.eye(2).double(), torch.arange(2), 2).is_finite


def test_infinite_features_whose_sum_is_not_a_number_are_found():
    with pytest.raises(ValueError, match="`features` must be finite"):
        feature_rows(torch.tensor([[torch.inf, -torch.inf, 0.0]]), torch.tensor([0]), 2)


def test_large_finite_half_features_pass_the_check():
    features = torch.full((64, 3), 60000.0, dtype=torch.float16)  # their sum overflows float16
    rows, _ = feature_rows(features, torch.zeros(64, dtype=torch.long), 1)
    assert torch.equal(rows, features)
