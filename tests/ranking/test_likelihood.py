"""Accuracies that inform each other: nearer to the truth when likelihoods tell of it, untouched when they do not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import weightedtau

from lightning_leep.ranking.likelihood import likelihood_shifts
from lightning_leep.ranking.ties import Estimate
from tests.ranking.test_ties import simulated


def moved(estimates, shifts):
    """The accuracies after the shifts on the logit scale."""
    values = np.array([estimate.value for estimate in estimates.values()])
    odds = values / (1 - values) * np.exp(list(shifts.values()))
    return odds / (1 + odds)


def test_they_come_nearer_to_the_truth():
    rng = np.random.default_rng(0)
    truth = np.linspace(0.70, 0.85, 8)
    before, after, taus = [], [], []
    for _ in range(60):
        estimates = simulated(rng, truth, n=200)
        plain = np.array([estimate.value for estimate in estimates.values()])
        better = moved(estimates, likelihood_shifts(estimates))
        before.append(np.square(plain - plain.mean() - (truth - truth.mean())).mean())
        after.append(np.square(better - better.mean() - (truth - truth.mean())).mean())
        taus.append(weightedtau(better, truth).statistic - weightedtau(plain, truth).statistic)
    assert np.mean(after) < 0.8 * np.mean(before)
    assert np.mean(taus) > 0


def test_likelihoods_that_say_nothing_change_little():
    """The likelihoods are those of other sources, so that accuracies far apart do not lie on a line."""
    rng = np.random.default_rng(1)
    estimates = simulated(rng, np.linspace(0.5, 0.9, 9), n=500)
    order = rng.permutation(9)
    likelihoods = [estimate.log_likelihood for estimate in estimates.values()]
    mixed = {
        name: replace(estimate, log_likelihood=likelihoods[order[place]])
        for place, (name, estimate) in enumerate(estimates.items())
    }
    found = moved(mixed, likelihood_shifts(mixed))
    plain = np.array([estimate.value for estimate in mixed.values()])
    assert np.abs(found - plain).max() < 0.03
    assert weightedtau(found, plain).statistic > 0.9


def test_the_line_by_hand():
    """Without any noise between rows the whole residual is real, and nothing moves."""
    rows = np.repeat([[1.0, 0.0]], 50, axis=0).ravel()  # right and wrong in turn
    estimates = {
        str(k): Estimate(0.5, 0.05, 100, rows, np.full(100, level), 1)
        for k, level in enumerate((-1.0, -0.9, -0.5, -0.2))
    }
    assert likelihood_shifts(estimates) == dict.fromkeys("0123", 0.0)


class TestNothingToLearnFrom:
    def estimates(self, accuracies=(0.6, 0.7, 0.8, 0.9)):
        return simulated(np.random.default_rng(2), accuracies)

    def test_too_few_sources(self):
        assert any(likelihood_shifts(self.estimates()).values())
        assert not any(likelihood_shifts(self.estimates((0.6, 0.7))).values())
        assert likelihood_shifts({}) == {}

    def test_a_source_with_other_rows_stays(self):
        estimates = self.estimates((0.5, 0.6, 0.7, 0.8, 0.9))
        estimates["2"] = replace(estimates["2"], labels=8)
        estimates["3"] = Estimate(0.8, 0.02, 500)
        shifts = likelihood_shifts(estimates)
        assert shifts["2"] == shifts["3"] == 0
        assert all(shifts[name] for name in "014")
        estimates["4"] = replace(estimates["4"], labels=9)
        assert not any(likelihood_shifts(estimates).values())  # two are left

    def test_accuracies_that_fall_with_the_likelihoods(self):
        estimates = self.estimates()
        backwards = dict(zip(estimates, reversed([e.log_likelihood for e in estimates.values()]), strict=True))
        mixed = {name: replace(e, log_likelihood=backwards[name]) for name, e in estimates.items()}
        assert not any(likelihood_shifts(mixed).values())

    def test_perfect_sources(self):
        perfect = Estimate(1.0, 0.0, 20, np.ones(20), np.zeros(20), 1)
        assert not any(likelihood_shifts(dict.fromkeys("abcd", perfect)).values())

    def test_rows_alone_in_their_class(self):
        estimates = self.estimates()
        with_one = {
            name: replace(e, correct=np.append(e.correct, np.nan), log_likelihood=np.append(e.log_likelihood, np.nan))
            for name, e in estimates.items()
        }
        assert likelihood_shifts(with_one) == pytest.approx(likelihood_shifts(estimates))
