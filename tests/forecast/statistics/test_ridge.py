"""Ridge regression: normal equations written out, strength by brute-force leave-one-out, corner cases."""

import numpy as np
import pytest

from lightning_leep.forecast.statistics.ridge import INTERCEPT_SCALE, PRIOR_SCALES, fit_ridge


def problem(seed, n=12, p=3):
    rng = np.random.default_rng(seed)
    x, scale = rng.normal(size=(n, p)), rng.uniform(0.5, 2, n)
    return x, x @ rng.normal(size=p) * 0.3 + 0.4 + rng.normal(size=n) * scale * 0.2, scale


def normal_equations(x, y, scale, prior_scale):
    """Centre, then (Z'WZ + diag(1 / (3 s)^2, 1 / s^2, ...)) b = Z'Wy."""
    weights = 1 / scale**2
    centre = (weights[:, None] * x).sum(0) / weights.sum()
    z = np.column_stack([np.ones(len(x)), x - centre])
    if prior_scale == 0:
        return centre, np.zeros(z.shape[1])
    penalty = np.diag([1 / (INTERCEPT_SCALE * prior_scale) ** 2] + [1 / prior_scale**2] * x.shape[1])
    return centre, np.linalg.solve(z.T @ (weights[:, None] * z) + penalty, z.T @ (weights * y))


def brute_force_loss(x, y, scale, prior_scale):
    """Leave-one-out error at a fixed centre, one refit a record."""
    weights, loss = 1 / scale**2, 0.0
    centre = (weights[:, None] * x).sum(0) / weights.sum()
    z = np.column_stack([np.ones(len(x)), x - centre])
    penalty = np.diag([1 / (INTERCEPT_SCALE * prior_scale) ** 2] + [1 / prior_scale**2] * x.shape[1])
    for i in range(len(y)):
        keep = np.arange(len(y)) != i
        zk, wk = z[keep], weights[keep]
        b = np.linalg.solve(zk.T @ (wk[:, None] * zk) + penalty, zk.T @ (wk * y[keep]))
        loss += weights[i] * (y[i] - z[i] @ b) ** 2
    return loss


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [4, 12, 40])
def test_solves_the_normal_equations_at_the_best_strength(seed, n):
    x, y, scale = problem(seed, n)
    fit = fit_ridge(x, y, scale)
    losses = [(y**2 / scale**2).sum()] + [brute_force_loss(x, y, scale, s) for s in PRIOR_SCALES[1:]]
    assert fit.prior_scale == PRIOR_SCALES[int(np.argmin(losses))]
    centre, coefficients = normal_equations(x, y, scale, fit.prior_scale)
    np.testing.assert_allclose(fit.centre, centre, atol=1e-12)
    np.testing.assert_allclose(fit.coefficients, coefficients, atol=1e-10)
    new = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(fit(new), coefficients[0] + (new - centre) @ coefficients[1:], atol=1e-10)


def test_all_strengths_are_reached():
    """Pure noise is answered by nothing, a strong clean dependence by the weakest prior."""
    rng = np.random.default_rng(0)
    x, flat = rng.normal(size=(60, 2)), np.ones(60)
    alternating = np.where(np.arange(60) % 2, 1.0, -1.0)
    assert fit_ridge(np.zeros((60, 2)), alternating, flat).prior_scale == 0
    assert fit_ridge(x, 3 * x[:, 0], 0.1 * flat).prior_scale == PRIOR_SCALES[-1]


def test_constant_features_change_nothing():
    x, y, scale = problem(3)
    widened = np.column_stack([x, np.full(len(x), 7.0)])
    fit = fit_ridge(widened, y, scale)
    np.testing.assert_allclose(fit.coefficients[:-1], fit_ridge(x, y, scale).coefficients, atol=1e-10)
    assert fit.coefficients[-1] == pytest.approx(0, abs=1e-12)
    assert np.isfinite(fit(np.full((1, 4), 100.0))).all()


def test_missing_features_say_nothing():
    x, y, scale = problem(4)
    with_hole = x.copy()
    with_hole[0, 1] = np.nan
    fit = fit_ridge(with_hole, y, scale)
    at_centre = x.copy()
    at_centre[0, 1] = np.average(x[1:, 1], weights=1 / scale[1:] ** 2)  # what the hole stands for
    np.testing.assert_allclose(fit.coefficients, fit_ridge(at_centre, y, scale).coefficients, atol=1e-10)
    absent = fit_ridge(np.column_stack([x, np.full(len(x), np.nan)]), y, scale)
    np.testing.assert_allclose(absent(np.ones((1, 4))), fit_ridge(x, y, scale)(np.ones((1, 3))), atol=1e-10)


def test_no_record_and_one_record():
    assert fit_ridge(np.zeros((0, 2)), np.zeros(0), np.zeros(0))(np.ones((1, 2))).tolist() == [0]
    one = fit_ridge(np.ones((1, 2)), np.array([1.0]), np.ones(1))
    assert one(np.ones((1, 2))).tolist() == [0]  # nothing to leave one out for: no correction
