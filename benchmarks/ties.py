"""How often rankings separate equal sources, and how often they find a gap, simulated.

    python benchmarks/ties.py [--rankings 1000] [--probes 200]

Margins: each row of each source has a Gaussian margin, correlated between sources; it is right where the margin is
positive, and its log-likelihood is that of a probit-like probe. Probes: leave-one-out linear probes of Gaussian
features, whose rows depend on each other because each is part of the probes of all others.
"""

import argparse
import itertools
from statistics import NormalDist

import numpy as np
import torch
from scipy.stats import multivariate_normal

from lightning_leep.functional import linear_probe
from lightning_leep.ranking.ties import MOST_DEPENDENCE, Estimate, compare_with_best

place_of = NormalDist().inv_cdf


def margins(rng: np.random.Generator, accuracies: list[float], n: int, correlation: float) -> dict[str, Estimate]:
    noise = np.sqrt(correlation) * rng.standard_normal(n)
    noise = noise + np.sqrt(1 - correlation) * rng.standard_normal((len(accuracies), n))
    values = noise + np.array([place_of(accuracy) for accuracy in accuracies])[:, None]
    correct, likelihood = (values > 0).astype(float), -np.logaddexp(0, -1.7 * values)
    return {str(k): Estimate(correct[k].mean(), 0.02, n, correct[k], likelihood[k], 1) for k in range(len(accuracies))}


def probes(
    rng: np.random.Generator, num_sources: int, n: int, c: int, d: int, correlation: float
) -> dict[str, Estimate]:
    target, common = np.arange(n) % c, rng.standard_normal((n, d))
    found = {}
    for k in range(num_sources):
        noise = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * rng.standard_normal((n, d))
        probe = linear_probe(torch.from_numpy(2.5 * np.eye(c, d)[target] + noise), torch.from_numpy(target), c)
        rows = [np.array(part) for part in (probe.row_correct, probe.row_log_likelihood)]
        found[str(k)] = Estimate(float(probe.accuracy), 0.02, n, *rows, 1, min(MOST_DEPENDENCE, d / n))
    return found


def separated(estimates: dict[str, Estimate]) -> bool:
    return any(not comparison.tied_with_best for comparison in compare_with_best(estimates).values())


def most_power(best: float, n: int, correlation: float) -> tuple[float, float]:
    """Power of two-sided tests of 5% for a gap of 5 points: McNemar's, and of all tests the best, given the margins."""
    first, second = place_of(best), place_of(best - 0.05)
    both = multivariate_normal(cov=[[1, correlation], [correlation, 1]]).cdf([first, second])
    variance = 2 * (best - both) - 0.05 - 0.05**2  # of the difference in correctness on a row
    standardised = 0.05 / np.sqrt(variance / n), (first - second) / np.sqrt(2 * (1 - correlation) / n)
    mcnemar, margin = (1 - NormalDist().cdf(place_of(0.975) - z) for z in standardised)
    return mcnemar, margin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rankings", type=int, default=1000)
    parser.add_argument("--probes", type=int, default=200, help="rankings of linear probes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("equal sources of accuracy 0.8: share of rankings that separate any")
    print(f"{'sources':>8}{'rows':>6}" + "".join(f"  r = {r}" for r in (0.0, 0.5, 0.9)))
    for num_sources, n in itertools.product((2, 3, 5, 12), (50, 200, 500)):
        rates = []
        for r in (0.0, 0.5, 0.9):
            rng = np.random.default_rng([num_sources, n, int(10 * r)])
            rankings = arguments.rankings * (10 if num_sources == 2 else 1)  # closest to 5%
            draws = (margins(rng, [0.8] * num_sources, n, r) for _ in range(rankings))
            rates.append(np.mean([separated(draw) for draw in draws]))
        print(f"{num_sources:8}{n:6}" + "".join(f"{rate:9.3f}" for rate in rates), flush=True)
    print("one source 5 points above the others, 500 rows: share of rankings that find it above the second")
    print(f"{'sources':>8}{'best':>6}" + "".join(f"  r = {r}" for r in (0.0, 0.5, 0.7, 0.9)))
    for num_sources, best in itertools.product((2, 5), (0.7, 0.8, 0.9)):
        rates = []
        for r in (0.0, 0.5, 0.7, 0.9):
            rng, hits = np.random.default_rng([num_sources, int(100 * best), int(10 * r)]), 0
            for _ in range(arguments.rankings):
                found = compare_with_best(margins(rng, [best] + [best - 0.05] * (num_sources - 1), 500, r))
                hits += found["0"].gap == 0 and not found["1"].tied_with_best
            rates.append(hits / arguments.rankings)
        print(f"{num_sources:8}{best:6}" + "".join(f"{rate:9.3f}" for rate in rates), flush=True)
    print("the most that can be found of two sources: by correctness alone (McNemar), by the margins themselves")
    for best in (0.7, 0.8, 0.9):
        found = (most_power(best, 500, r) for r in (0.0, 0.5, 0.7, 0.9))
        print(f"{2:8}{best:6}" + "".join(f"  {mcnemar:.2f} {margin:.2f}" for mcnemar, margin in found))
    print("equal linear probes: share of rankings that separate any, with and without the dependence of the rows")
    for num_sources, (n, c, d), r in itertools.product((2, 4), ((50, 5, 16), (200, 10, 64), (500, 10, 64)), (0.0, 0.8)):
        rng = np.random.default_rng([num_sources, n, int(10 * r)])
        draws = [probes(rng, num_sources, n, c, d, r) for _ in range(arguments.probes)]
        without = [{name: e.__class__(**{**vars(e), "dependence": 0.0}) for name, e in draw.items()} for draw in draws]
        rates = [np.mean([separated(draw) for draw in kind]) for kind in (draws, without)]
        title = f"{num_sources} sources, {n} rows, {c} classes, {d} features, r = {r}"
        print(f"{title:55}{rates[0]:8.3f}{rates[1]:8.3f}", flush=True)


if __name__ == "__main__":
    main()
