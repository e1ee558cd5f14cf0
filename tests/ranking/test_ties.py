"""Which sources can be told from the best: simulated rankings, and each edge by hand."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from lightning_leep import score_outputs
from lightning_leep.functional import linear_probe
from lightning_leep.ranking.ties import Estimate, compare_with_best, forecast_estimate, score_estimate

place_of = NormalDist().inv_cdf


def simulated(rng, accuracies, n=500, correlation=0.7):
    """Sources whose rows have margins that are correlated between sources: right where the margin is positive."""
    common, own = rng.standard_normal(n), rng.standard_normal((len(accuracies), n))
    margins = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
    margins += np.array([place_of(accuracy) for accuracy in accuracies])[:, None]
    correct, log_likelihood = (margins > 0).astype(float), -np.logaddexp(0, -1.7 * margins)
    return {
        str(k): Estimate(correct[k].mean(), correct[k].std() / math.sqrt(n), n, correct[k], log_likelihood[k], labels=7)
        for k in range(len(accuracies))
    }


def separates(found):
    return any(not comparison.tied_with_best for comparison in found.values())


class TestSimulated:
    @pytest.mark.parametrize("num_sources", [2, 12])
    @pytest.mark.parametrize(("n", "correlation"), [(100, 0.0), (500, 0.8)])
    def test_equal_sources_are_rarely_separated(self, num_sources, n, correlation):
        """At most 5% of rankings; 400 rankings of exactly 5% give at most 7.5% in all but 1% of simulations."""
        rng = np.random.default_rng([num_sources, n])
        draws = (simulated(rng, [0.8] * num_sources, n, correlation) for _ in range(400))
        assert np.mean([separates(compare_with_best(draw)) for draw in draws]) <= 0.075

    def test_equal_sources_among_worse_ones_are_rarely_separated(self):
        """The worse ones are found first; the comparisons that remain must not be too lenient for that."""
        rng = np.random.default_rng(0)
        wrong, found_worse = 0, 0
        for _ in range(400):
            found = compare_with_best(simulated(rng, [0.8, 0.8, 0.8, 0.5, 0.4]))
            wrong += any(not found[name].tied_with_best for name in "012")
            found_worse += not found["3"].tied_with_best and not found["4"].tied_with_best
        assert wrong / 400 <= 0.075
        assert found_worse == 400

    def test_five_points_are_found(self):
        rng = np.random.default_rng(1)
        finds = [compare_with_best(simulated(rng, [0.85, 0.80], 500, 0.7)) for _ in range(200)]
        assert np.mean([found["0"].rank == 1 and not found["1"].tied_with_best for found in finds]) >= 0.8

    @pytest.mark.slow
    def test_probes_of_equal_sources_are_rarely_separated(self):
        """Outcomes of real probes depend on each other: rows are few for the features."""
        rng = np.random.default_rng(2)
        target = np.arange(80) % 4
        wrong = 0
        for _ in range(60):
            common = rng.standard_normal((80, 24))
            estimates = {}
            for name in "abc":
                noise = 0.8 * common + 0.6 * rng.standard_normal((80, 24))
                features = torch.from_numpy(2.0 * np.eye(4, 24)[target] + noise)
                probe = linear_probe(features, torch.from_numpy(target), 4)
                rows = probe.row_correct.numpy(), probe.row_log_likelihood.numpy()
                estimates[name] = Estimate(probe.accuracy.item(), 0.05, 80, *rows, labels=1, dependence=24 / 80)
            wrong += separates(compare_with_best(estimates))
        assert wrong / 60 <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / 60)


def by_hand(correct, log_likelihood=None, **kwargs):
    correct = np.array(correct, dtype=float)
    log_likelihood = np.full(len(correct), -0.5) if log_likelihood is None else np.array(log_likelihood)
    return Estimate(np.nanmean(correct), 0.1, len(correct), correct, log_likelihood, labels=1, **kwargs)


#: 30 rows only the first has right, 10 only the second: z = 20 / sqrt(40), which is above 1.96.
FAR = [1] * 30 + [0] * 10 + [1] * 60, [0] * 30 + [1] * 10 + [1] * 60
#: 12 against 6 of 100: z = 6 / sqrt(18) = sqrt(2).
NEAR = [1] * 12 + [0] * 6 + [1] * 82, [0] * 12 + [1] * 6 + [1] * 82


def test_mcnemar_by_hand():
    first, second = FAR
    found = compare_with_best({"second": by_hand(second), "first": by_hand(first)})
    assert list(found) == ["first", "second"]
    assert found["second"].gap == pytest.approx(0.2)
    assert found["second"].standard_error == pytest.approx(math.sqrt(40) / 100)
    assert (found["second"].rank, found["second"].tied_with_best, found["second"].more_samples) == (2, False, None)
    third = compare_with_best({"first": by_hand(first), "second": by_hand(second), "third": by_hand(second)})
    assert [third[name].rank for name in ("first", "second", "third")] == [1, 2, 2]


def test_how_many_rows_would_settle_a_tie_and_log_likelihoods_that_settle_it():
    """For z = 1.96 it takes 1.96^2 / 2 times the rows."""
    first, second = NEAR
    found = compare_with_best({"a": by_hand(first), "b": by_hand(second)})
    assert (found["b"].rank, found["b"].tied_with_best) == (1, True)
    assert found["b"].more_samples == math.ceil(100 * (place_of(0.975) ** 2 / 2 - 1))
    rng = np.random.default_rng(0)
    sure, unsure = -0.2 + 0.1 * rng.standard_normal(100), -0.6 + 0.1 * rng.standard_normal(100)
    found = compare_with_best({"a": by_hand(first, sure), "b": by_hand(second, unsure)})
    assert not found["b"].tied_with_best


def test_log_likelihoods_alone_separate_nothing():
    """A gap of one row in 100 is no finding, however sure one source is."""
    first, second = [1] * 51 + [0] * 49, [0] * 50 + [1] * 50
    sure, unsure = np.full(100, -0.1), np.linspace(-2, -1, 100)
    found = compare_with_best({"a": by_hand(first, sure), "b": by_hand(second, unsure)})
    assert found["b"].tied_with_best


def test_other_rows_are_compared_without_pairs():
    a = Estimate(0.80, 0.018, 500, labels=None)
    b = Estimate(0.70, 0.020, 500, labels=None)
    found = compare_with_best({"a": a, "b": b})["b"]
    assert found.standard_error == pytest.approx(math.hypot(0.018, 0.020))
    assert not found.tied_with_best
    assert "without pairing" in found.note
    close = compare_with_best({"a": a, "b": Estimate(0.77, 0.02, 500)})["b"]
    assert close.tied_with_best


def test_rows_left_out_of_one_source_are_left_out_of_both():
    nan = math.nan
    found = compare_with_best({"a": by_hand([1, 1, 1, nan]), "b": by_hand([1, nan, 0, 0])})["b"]
    assert found.standard_error == pytest.approx(math.sqrt(1) / 2)


def test_what_the_history_adds_has_an_error_too():
    first, second = FAR
    found = compare_with_best({"a": by_hand(first, other_error=0.2), "b": by_hand(second)})["b"]
    assert found.standard_error == pytest.approx(math.hypot(math.sqrt(40) / 100, 0.2))
    assert found.tied_with_best


def test_sources_that_are_found_make_the_other_comparisons_less_strict():
    """2.2 standard errors: more than the 1.96 for the one pair that is left, less than the 2.39 for three pairs."""
    gap = 2.2 * math.hypot(0.02, 0.02)
    best, second = Estimate(0.8, 0.02, 500), Estimate(0.8 - gap, 0.02, 500)
    assert not compare_with_best({"a": best, "b": second, "c": Estimate(0.3, 0.02, 500)})["b"].tied_with_best
    assert compare_with_best({"a": best, "b": second, "c": Estimate(0.79, 0.02, 500)})["b"].tied_with_best


def test_identical_sources_and_perfect_ones_on_other_rows_share_the_first_place():
    found = compare_with_best({"a": by_hand([1, 0, 1]), "b": by_hand([1, 0, 1])})
    assert [(c.rank, c.tied_with_best, c.gap, c.more_samples) for c in found.values()] == [(1, True, 0.0, None)] * 2
    # Neither has a standard error left, nor is there a gap.
    found = compare_with_best({"a": Estimate(1.0, 0.0, 50), "b": Estimate(1.0, 0.0, 50), "c": Estimate(0.3, 0.06, 50)})
    assert (found["b"].rank, found["b"].tied_with_best) == (1, True)
    assert (found["c"].rank, found["c"].tied_with_best) == (3, False)


def test_a_gap_of_rounding_is_settled_by_no_number_of_rows():
    """More than ten million rows are no advice."""
    for gap in (1e-3, 1e-4, 1e-7, 1e-170):
        found = compare_with_best({"a": Estimate(gap, 0.02, 500), "b": Estimate(0.0, 0.02, 500)})
        assert found["b"].tied_with_best
        assert (found["b"].more_samples is None) == (gap < 1e-3)


def test_without_standard_errors_the_value_decides_and_confidence_is_a_probability():
    found = compare_with_best({"a": Estimate(1.0), "b": Estimate(0.9), "c": Estimate(0.9), "d": Estimate(math.nan)})
    assert {name: c.rank for name, c in found.items()} == {"a": 1, "b": 2, "c": 2, "d": None}
    assert compare_with_best({"d": Estimate(math.nan)})["d"].rank is None
    assert compare_with_best({}) == {}
    for confidence in (0, 1, 1.5, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            compare_with_best({"a": Estimate(1.0)}, confidence)


@pytest.fixture(scope="module")
def report():
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(120) % 3
    features = torch.randn(120, 6, generator=generator) + 2 * torch.eye(3, 6)[target]
    other = torch.randn(120, 4, generator=generator) + 2 * torch.eye(3, 4)[target]
    return score_outputs(features[:, :4], target, 3, features=features, layers={"first": other, "last": features})


class TestEstimates:
    def test_each_part_rests_on_the_features_that_it_uses(self, report):
        last, together = report.linear_probe_accuracy, report.multi_layer_probe_accuracy
        assert last != together
        for trainable, wanted, features in (("head", last, 6), ("all", together, 10)):
            found = forecast_estimate(report, 0.9, trainable)
            assert found.value == 0.9
            assert found.correct.mean() == pytest.approx(wanted)
            assert found.dependence == pytest.approx(features / 120)
        part = forecast_estimate(report, 0.9, "part", "last")
        assert part.correct.mean() == pytest.approx(np.mean([last, together]))
        all_layers = forecast_estimate(report, 0.9, "all")
        both = [rows.log_likelihood for rows in (report.linear_probe_rows, report.multi_layer_probe_rows)]
        np.testing.assert_allclose(all_layers.log_likelihood, np.mean(both, axis=0))

    def test_without_features_there_is_an_error_and_no_rows(self, report):
        target = torch.arange(120) % 3
        bare = score_outputs(torch.eye(3)[target] * 2, target, 3)
        found = forecast_estimate(bare, bare.eep_accuracy, "head")
        assert found.correct is None
        assert found.standard_error == pytest.approx(0.0)

    def test_scores(self, report):
        probe = score_estimate(report, "linear_probe_accuracy")
        assert probe.correct.mean() == pytest.approx(probe.value)
        leep = score_estimate(report, "leave_one_out_leep")
        assert (leep.standard_error, leep.correct) == (report.leave_one_out_leep_standard_error, None)
        assert score_estimate(report, "log_me").standard_error is None
        assert math.isnan(score_estimate(report, "nleep").value)
