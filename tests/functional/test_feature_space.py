"""Every route to the scores of features gives their values: from rows, from moments, from the range of the moments.

References are dense NumPy from the definitions. None of them decomposes what the library decomposes.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_leep.functional.feature_space import space_of_moments, space_of_rows
from lightning_leep.functional.h_score import h_score_of_space
from lightning_leep.functional.linear_discriminant import linear_discriminant
from lightning_leep.functional.linear_probe import linear_probe_result, linear_probe_sums
from lightning_leep.functional.log_me import log_me_of_space
from lightning_leep.functional.moments import feature_moments
from tests._helpers.feature_references import reference_h_score, reference_log_me, reference_probe


def make(n, d, C, seed=0, signal=0.6):
    rng = np.random.default_rng(seed)
    target = np.arange(n) % C
    return rng.normal(size=(n, d)) * rng.uniform(0.3, 3, d) + signal * rng.normal(size=(C, d))[target], target


def scores(space, rows, labels):
    result = linear_probe_result(linear_probe_sums(rows, labels, linear_discriminant(space)), space.class_counts)
    return {
        "h_score": h_score_of_space(space).item(),
        "h_score_unshrunk": h_score_of_space(space, shrinkage=False).item(),
        "log_me": log_me_of_space(space).item(),
        "linear_probe_accuracy": result.accuracy.item(),
        "linear_probe_accuracy_standard_error": result.standard_error.item(),
        "linear_probe_log_likelihood": result.log_likelihood.item(),
        "linear_probe_balanced_accuracy": result.balanced_accuracy.item(),
        "linear_probe_shrinkage": result.shrinkage.item(),
    }


def by_every_route(features, target, C=None):
    """Scores by route; the probe with a decomposition of its own, and with what the others have decomposed."""
    x, y = torch.as_tensor(features), torch.as_tensor(target)
    C = int(target.max()) + 1 if C is None else C
    moments = feature_moments(x, y, C)
    found = {}
    for route in ("moments", "moments, shared"):
        space = space_of_moments(moments)
        if "shared" in route:
            _ = space.spectrum
        found[route, space.basis is not None] = scores(space, x, y)
    if len(x) <= x.shape[1]:
        space = space_of_rows(x, y, C)
        found["rows", False] = scores(space, space.rows, space.labels)
    return found


def expected(features, target):
    found = {
        "h_score": reference_h_score(features, target, shrinkage=True),
        "h_score_unshrunk": reference_h_score(features, target, shrinkage=False),
        "log_me": reference_log_me(features, target),
    } | reference_probe(features, target)
    del found["linear_probe_samples"]
    return found


@pytest.mark.parametrize(
    ("n", "d", "C"),
    [
        (60, 8, 3),  # the features' own dimensions
        (30, 30, 3),
        (24, 40, 4),  # rows, and the features' own dimensions
        (20, 90, 4),  # rows, and the range
        (12, 200, 6),
    ],
)
def test_routes_equal_the_definitions(n, d, C):
    features, target = make(n, d, C, seed=n)
    routes = by_every_route(features, target)
    assert (("moments", True) in routes) == (2 * (n + 8) <= d)
    assert (("rows", False) in routes) == (n <= d)
    wanted = {k: pytest.approx(v, rel=1e-6) for k, v in expected(features, target).items()}
    for route, found in routes.items():
        assert found == wanted, route


def repeated(features, target):
    return np.concatenate([features, features[:9]]), np.concatenate([target, target[:9]])


def nearly_repeated(features, target):
    """The differences are directions that count as absent from the plain H-score."""
    again = features[:9] + 1e-6 * np.random.default_rng(6).normal(size=(9, features.shape[1]))
    return np.concatenate([features, again]), np.concatenate([target, (target[:9] + 1) % (target.max() + 1)])


def constant(features, target):
    features = features.copy()
    features[:, ::3] = np.where(np.arange(len(features[0, ::3])) % 2, 0.0, 40.1)
    return features, target


def one_scale_for_each(features, target):
    return features * np.geomspace(1e-5, 1e3, features.shape[1]), target


def nearly_dependent(features, target):
    rng = np.random.default_rng(5)
    half = features.shape[1] // 2
    mixed = features[:, :half] @ rng.normal(size=(half, features.shape[1] - half)) / half
    return np.concatenate([features[:, :half], mixed + 1e-4 * features[:, half:]], axis=1), target


def few_that_vary(features, target):
    features = features.copy()
    features[:, 6:] = 0.25
    return features, target


AWKWARD = (repeated, nearly_repeated, constant, one_scale_for_each, nearly_dependent, few_that_vary)


@pytest.mark.slow
@pytest.mark.parametrize("change", AWKWARD)
@pytest.mark.parametrize(("n", "d", "C"), [(60, 12, 3), (20, 90, 4)])
def test_awkward_features(change, n, d, C):
    features, target = change(*make(n, d, C, seed=d))
    centred = features - features.mean(0)
    varying = centred[:, centred.std(0) > 1e-9]
    # The plain H-score by projections on unit-variance features: the definition's inverse lacks the digits.
    u, s, _ = np.linalg.svd(varying / varying.std(0), full_matrices=False)
    u = u[:, s > 1e-6 * s[0]]
    plain = sum(((u.T @ (target == k)) ** 2).sum() / (target == k).sum() for k in range(C))
    wanted = expected(features, target) | {"h_score_unshrunk": plain}
    for route, found in by_every_route(features, target).items():
        if change in (one_scale_for_each, nearly_repeated):
            wanted["log_me"] = found["log_me"]  # F F' of the reference has lost the small directions
        assert found == {k: pytest.approx(v, rel=2e-6) for k, v in wanted.items()}, route


@pytest.mark.parametrize(("n", "d", "C"), [(60, 12, 3), (20, 90, 4)])
def test_scores_that_know_no_unit(n, d, C):
    """LogME of raw features is a density over labels: no unit either."""
    features, target = make(n, d, C)
    wanted = by_every_route(features, target)
    for scale in (1e-60, 1e70):
        for route, found in by_every_route(features * scale, target).items():
            assert found == {k: pytest.approx(v, rel=1e-8) for k, v in wanted[route].items()}, route


@pytest.mark.parametrize(("n", "d", "C"), [(60, 12, 3), (24, 40, 4), (20, 90, 4)])
def test_large_mean_costs_few_digits(n, d, C):
    """2^20, a million standard deviations."""
    features, target = make(n, d, C)
    features = np.round(features * 2**20) / 2**20  # adding the mean is exact
    wanted = expected(features, target)
    del wanted["log_me"]  # which depends on the mean
    for route, found in by_every_route(features + 2.0**20, target).items():
        assert {k: found[k] for k in wanted} == {k: pytest.approx(v, rel=1e-6) for k, v in wanted.items()}, route


@settings(max_examples=20, deadline=None)
@given(n=st.integers(4, 30), d=st.integers(1, 80), C=st.integers(2, 5), seed=st.integers(0, 10**6), blank=st.booleans())
def test_routes_agree(n, d, C, seed, blank):
    features, target = make(n, d, C, seed)
    if blank:  # as many rows again that say nothing new, one feature that says nothing, one class without a row
        features, target = np.concatenate([features, features]), np.concatenate([target, target])
        features[:, 0] = 3.0
    first, *others = by_every_route(features, target, C + 1).values()
    for other in others:
        assert other == {k: pytest.approx(v, rel=1e-6, abs=1e-9, nan_ok=True) for k, v in first.items()}


@pytest.mark.parametrize(("n", "d", "C"), [(120, 30, 5), (28, 60, 4)])
@pytest.mark.parametrize("distance", [0.3, 1e2, 1e5])
def test_classes_far_apart_need_a_decomposition_of_their_own(n, d, C, distance):
    """The scatter within classes is what is left of the total one: as exact when that is nearly all between them."""
    features, target = make(n, d, C, signal=distance)
    x, y = torch.as_tensor(features), torch.as_tensor(target)
    own, shared = space_of_moments(feature_moments(x, y, C)), space_of_moments(feature_moments(x, y, C))
    _ = shared.spectrum
    found, wanted = (linear_probe_sums(x, y, linear_discriminant(space)) for space in (shared, own))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-12)


def test_a_decomposition_serves_all(monkeypatch):
    """One of the size of the rows, or of the features, for all scores of either side."""
    sizes = []
    decompose = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: (sizes.append(len(m)), decompose(m))[1])
    for n, d, C in ((200, 60, 3), (40, 300, 3)):
        sizes.clear()
        features, target = make(n, d, C)
        x, y = torch.as_tensor(features), torch.as_tensor(target)
        space = space_of_rows(x, y, C) if n <= d else space_of_moments(feature_moments(x, y, C))
        _ = space.spectrum
        scores(space, x if space.rows is None else space.rows, y)
        assert sizes == [min(n, d)]
