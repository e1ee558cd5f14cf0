"""Linear probe against refitting the discriminant once for every row that is left out."""

import time

import numpy as np
import pytest
import torch

from lightning_leep.functional import chunks
from lightning_leep.functional.feature_space import space_of_moments
from lightning_leep.functional.linear_discriminant import SHRINKAGES, linear_discriminant
from lightning_leep.functional.linear_probe import SCALES, linear_probe, linear_probe_sums
from lightning_leep.functional.moments import feature_moments
from tests._helpers.distributed import run_processes
from tests._helpers.feature_references import reference_probe_scores
from tests._helpers.peak_memory import needs_peak_memory, peak_extra_bytes, return_freed_blocks


def make(n, d, C, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, C, n)
    target[: min(n, 2 * C)] = np.arange(min(n, 2 * C)) % C  # where n allows, two rows of every class
    return rng.normal(size=(n, d)) * rng.uniform(0.2, 3, d) + signal * rng.normal(size=(C, d))[target], target


def probe(features, target, C=None, **kwargs):
    C = int(target.max()) + 1 if C is None else C
    return linear_probe(torch.as_tensor(features), torch.as_tensor(target), C, **kwargs)


def candidates(sums):
    """Rows predicted correctly and sum of the log posteriors, ``[shrinkages, scales]`` each."""
    return (part.view(len(SHRINKAGES), len(SCALES)) for part in (sums[2:].sum(0), sums[0]))


CASES = {
    "more rows than features": make(90, 5, 4, seed=1),
    "fewer rows than features": make(24, 40, 3, seed=2),
    "two classes": make(30, 3, 2, seed=3, signal=0.5),
    "one feature": make(25, 1, 3, seed=4),
    "more classes than features": make(60, 2, 15, seed=5, signal=3.0),
    "imbalanced": (lambda x, y: (x, np.where(y > 0, 1, 0)))(*make(60, 4, 8, seed=6)),
    "singular scatter": (lambda x, y: (np.concatenate([x, x[:, :2], np.ones((50, 1))], 1), y))(*make(50, 4, 3, seed=7)),
    "single-image classes": (lambda x, y: (x, np.r_[[5, 6, 7], y[3:]]))(*make(40, 6, 4, seed=8)),
    "one degree of freedom": (make(4, 3, 1, seed=9)[0], np.array([0, 0, 1, 2])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_equals_refitting_without_each_row(name):
    """Every shrinkage and scale, and the one that is chosen."""
    features, target = CASES[name]
    features = features + 1e5  # both lose 5 of their 16 digits when they centre the rows
    correct, posterior = reference_probe_scores(features, target)
    x, y = torch.from_numpy(features), torch.from_numpy(target)
    moments = feature_moments(x, y, int(target.max()) + 1)
    num_correct, log_posterior = candidates(linear_probe_sums(x, y, linear_discriminant(space_of_moments(moments))))
    np.testing.assert_allclose(num_correct, correct.sum(0), rtol=1e-12)
    np.testing.assert_allclose(log_posterior, posterior.sum(0), rtol=1e-8)

    result = probe(features, target)
    best = np.unravel_index(posterior.sum(0).argmax(), posterior.shape[1:])
    assert result.shrinkage.item() == SHRINKAGES[best[0]]
    assert result.scale.item() == SCALES[best[1]]
    chosen = correct[:, best[0], best[1]]
    assert result.accuracy.item() == pytest.approx(chosen.mean(), rel=1e-12)
    assert result.num_correct.item() == pytest.approx(chosen.sum(), rel=1e-12)
    assert result.standard_error.item() == pytest.approx(chosen.std(ddof=1) / np.sqrt(len(chosen)), rel=1e-9)
    assert result.log_likelihood.item() == pytest.approx(posterior[:, best[0], best[1]].mean(), rel=1e-8)
    assert result.num_rows.item() == len(correct)
    assert result.num_excluded.item() == len(target) - len(correct)

    # What is known of each row and of each class.
    counts = np.bincount(target)
    counted = counts[target] > 1
    np.testing.assert_allclose(result.row_correct[counted], chosen, rtol=1e-12)
    np.testing.assert_allclose(result.row_log_likelihood[counted], posterior[:, *best], rtol=1e-8, atol=1e-12)
    assert result.row_correct[~counted].isnan().all()
    by_class = [chosen[target[counted] == k].mean() if n > 1 else np.nan for k, n in enumerate(counts)]
    np.testing.assert_allclose(result.class_accuracy, by_class, rtol=1e-12)
    assert result.balanced_accuracy.item() == pytest.approx(np.nanmean(by_class), rel=1e-12)
    assert result.largest_class_rate.item() == pytest.approx(counts.max() / len(target), rel=1e-12)


@pytest.mark.parametrize(("n", "d", "C"), [(300, 8, 5), (100, 200, 5), (400, 30, 20)])
def test_noise_scores_no_better_than_chance(n, d, C):
    """Balanced labels that are independent of the features: accuracy at 1/C or slightly below.

    The log-likelihood is at most -log C but for the choice of two settings from the same rows, worth about 1/n each.
    """
    repeats = 15
    results = [probe(np.random.default_rng(seed).normal(size=(n, d)), np.arange(n) % C, C) for seed in range(repeats)]
    deviation = np.mean([r.accuracy.item() for r in results]) - 1 / C
    binomial = np.sqrt((1 - 1 / C) / C / (n * repeats))
    assert -0.25 / C < deviation < 4 * binomial
    assert np.mean([r.log_likelihood.item() for r in results]) < -np.log(C) + 2 / n


@pytest.mark.slow
def test_time_of_1024_features_is_that_of_few_refits():
    """n leave-one-out discriminants cost less than n / 8 refits of a dense discriminant, one shrinkage each."""
    n, d, C = 400, 1024, 20
    features, target = make(n, d, C, seed=0)
    rows, labels = torch.from_numpy(features).float(), torch.from_numpy(target)

    def refit() -> None:
        x = rows[1:].double()
        means = torch.zeros(C, d, dtype=torch.double).index_add_(0, labels[1:], x)
        means /= torch.bincount(labels[1:], minlength=C).unsqueeze(1)
        residuals = x - means[labels[1:]]
        covariance = residuals.T @ residuals + torch.eye(d, dtype=torch.double)
        torch.linalg.solve(covariance, torch.cat([means, x[:1]]).T)

    refit()
    start = time.perf_counter()
    for _ in range(3):
        refit()
    one_refit = (time.perf_counter() - start) / 3
    start = time.perf_counter()
    result = linear_probe(rows, labels, C)
    assert time.perf_counter() - start < n / 8 * one_refit
    assert result.num_rows == n


def memory_of_a_probe(rank, world_size):
    n, d, C = 100_000, 64, 10
    return_freed_blocks()
    features, target = torch.randn(n, d).half(), torch.randint(C, (n,))
    moments = feature_moments(features, target, C)
    discriminant = linear_discriminant(space_of_moments(moments))
    linear_probe_sums(features[:1000], target[:1000], discriminant)
    of_moments = peak_extra_bytes(feature_moments, features, target, C)
    return max(of_moments, peak_extra_bytes(linear_probe_sums, features, target, discriminant))


@pytest.mark.slow
@pytest.mark.distributed
@needs_peak_memory
def test_no_copy_of_the_rows_in_double_precision():
    """Moments and sums over rows take less than half of an n x d float64 array (51 MB), let alone n x C x d."""
    (taken,) = run_processes(memory_of_a_probe, 1)
    assert taken < 100_000 * 64 * 8 / 2


def test_chunks_change_nothing(monkeypatch):
    """Of seven rows each, among them the only one of its class."""
    features, target = make(60, 4, 3, seed=2)
    target[20] = 3
    whole = probe(features, target)
    monkeypatch.setattr(chunks, "CHUNK_BYTES_CPU", 8 * 4 * 7)
    torch.testing.assert_close(
        probe(features, target)._asdict(), whole._asdict(), rtol=1e-9, atol=1e-12, equal_nan=True
    )
    assert whole.row_correct.isnan().nonzero().tolist() == [[20]]
