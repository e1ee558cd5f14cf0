"""Cost of the scores of features after the last batch, against one eigendecomposition of the smaller of n and d.

    python benchmarks/feature_cost.py [--check] [--case N D C] [--repeats 3]

For n rows of d features and C classes it prints the time of one symmetric eigendecomposition of the rows' products
(n x n) or of the scatter (d x d), whichever is smaller, and that of ``FeatureScores.compute`` (H-score plain and
shrunk, LogME, leave-one-out linear probe) on the same features, with the number of eigendecompositions that this is
after the 0.05 s that every case may take. "summed" is the same where the rows are not kept: from their moments, as on
several processes, and with a second reading of the rows; "update" is the time of all updates in batches of 64. Times
are CPU seconds, the shortest of several runs. ``--check`` computes every score again in another way (inverses of the
covariance, singular values of the features) and prints the largest relative difference, which takes minutes.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from lightning_leep import FeatureScores
from lightning_leep.functional.h_score import ABSENT_VARIANCE
from lightning_leep.functional.linear_discriminant import SHRINKAGES
from lightning_leep.functional.linear_probe import SCALES

CASES = [(5000, 2048, 100), (500, 2048, 100), (500, 2048, 10), (64, 4096, 8), (500, 768, 20), (5000, 64, 10),
         (2000, 1024, 50)]  # fmt: skip


def features_of(n: int, d: int, C: int) -> tuple[Tensor, Tensor]:
    """Rectified features whose variances fall off as a power, and labels that they say something about."""
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(n) % C
    scale = torch.arange(1, d + 1) ** -0.5  # of the principal components
    signal = 1.5 * torch.randn(C, d, generator=generator)[target] / d**0.25
    mixing = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    features = ((torch.randn(n, d, generator=generator) + signal) * scale) @ mixing  # [n, d]
    return (features / features.std() + 0.2).relu(), target


def best_time(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def updated(features: Tensor, target: Tensor, C: int, **kwargs: bool) -> FeatureScores:
    metric = FeatureScores(C, features.shape[1], **kwargs)
    for rows, labels in zip(features.split(64), target.split(64), strict=True):
        metric.update(rows, labels)
    return metric


def compute_again(metric: FeatureScores) -> dict[str, Tensor]:
    metric._computed = None
    return metric.compute()


def summed_scores(features: Tensor, target: Tensor, C: int) -> Callable[[], dict[str, Tensor]]:
    """The scores where no rows are kept: those of the moments, and of the rows as they are read again."""
    metric = updated(features, target, C, keep_rows=False)

    def run() -> dict[str, Tensor]:
        score_batch = metric.second_pass()
        for rows, labels in zip(features.split(512), target.split(512), strict=True):
            score_batch(rows, labels)
        return compute_again(metric)

    return run


def reference(features: Tensor, target: Tensor, C: int) -> dict[str, float]:
    """Every score in another way, dense and slow."""
    x, counts = features.double(), torch.bincount(target, minlength=C).double()
    n, d = x.shape
    x = x - x.mean(dim=0)
    means = torch.zeros(C, d, dtype=torch.double).index_add_(0, target, x) / counts.unsqueeze(1)
    values = {"log_me": reference_log_me(features.double().numpy(), target.numpy())}
    # The plain H-score: projections of the labels on the features, each of unit variance.
    scaled = x / torch.where(x.std(dim=0) > 0, x.std(dim=0), 1.0)
    left, sizes, _ = torch.linalg.svd(scaled, full_matrices=False)
    left = left[:, sizes.square() > ABSENT_VARIANCE * sizes[0].square()]
    by_class = torch.zeros(C, left.shape[1], dtype=torch.double).index_add_(0, target, left)
    values["h_score_unshrunk"] = float((by_class.square() / counts.unsqueeze(1)).sum())
    total, norms = x.T @ x / n, x.square().sum(dim=1)
    level = total.diagonal().mean() * torch.eye(d, dtype=torch.double)
    alpha = min(1.0, float((norms.square().mean() - total.square().sum()) / n / (total - level).square().sum()))
    roots = means * (counts / n).sqrt().unsqueeze(1)
    shrunk = torch.linalg.cholesky((1 - alpha) * total + alpha * level)
    values["h_score"] = (1 - alpha) * float(torch.linalg.solve_triangular(shrunk, roots.T, upper=False).square().sum())
    # The probe: the inverse covariance under each shrinkage, with each row taken out by Sherman and Morrison.
    residuals = x - means[target]
    within, freedom = residuals.T @ residuals, n - C
    ridge, leverage = within.diagonal().mean() * torch.eye(d, dtype=torch.double), (counts / (counts - 1))[target]
    best = (-np.inf, 0.0, 0.0)
    for share in SHRINKAGES:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky((1 - share) * within + share * ridge))
        apart = residuals @ inverse  # [n, d]
        own = (apart * residuals).sum(dim=1)
        left_out = 1 - (1 - share) * leverage * own
        products = means @ inverse
        distances = ((x @ inverse) * x).sum(dim=1, keepdim=True) - 2 * x @ products.T + (products * means).sum(dim=1)
        across = (apart * x).sum(dim=1, keepdim=True) - apart @ means.T
        distances += ((1 - share) * leverage / left_out).unsqueeze(1) * across.square()
        distances[torch.arange(n), target] = leverage.square() * own / left_out
        for scale in SCALES:
            log_posterior = ((counts / n).log() - scale / 2 * (freedom - 1) * distances).log_softmax(dim=1)
            likelihood = float(log_posterior[torch.arange(n), target].mean())
            if likelihood > best[0]:
                best = (likelihood, float((log_posterior.argmax(dim=1) == target).double().mean()), share)
    names = ("linear_probe_log_likelihood", "linear_probe_accuracy", "linear_probe_shrinkage")
    return values | dict(zip(names, best, strict=True))


def reference_log_me(features: np.ndarray, target: np.ndarray) -> float:
    left, sizes, _ = np.linalg.svd(features, full_matrices=False)
    squares, n = sizes**2, len(target)
    highest = np.log(1e10 / features.var(axis=0).sum())
    found = []
    for label in np.unique(target):
        y = (target == label).astype(float)
        reached = (left.T @ y) ** 2
        rest = y @ y - reached.sum()
        rest = 0.0 if len(squares) == n else rest

        def loss(log_ratio: float, reached: np.ndarray = reached, rest: float = rest) -> float:
            misfit = rest + (reached / (1 + np.exp(log_ratio) * squares)).sum()
            return 0.5 * (np.log(2 * np.pi * misfit / n) + 1 + np.log1p(np.exp(log_ratio) * squares).sum() / n)

        grid = np.linspace(highest - 45, highest, 180)
        start = grid[np.argmin([loss(t) for t in grid])]
        bounds = (start - 0.5, min(start + 0.5, highest))
        found.append(-minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8}).fun)
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=int, nargs=3, action="append", metavar=("N", "D", "C"))
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU seconds")
    print(f"{'n':>5} {'d':>5} {'C':>4} | {'update':>7} | {'eigh':>7} {'scores':>7} {'in eigh':>8} | {'summed':>7} "
          f"{'in eigh':>8} | largest difference between the two, from the check; accuracy")  # fmt: skip
    for n, d, C in arguments.case or CASES:
        features, target = features_of(n, d, C)
        centred = features.double() - features.double().mean(dim=0)
        matrix = centred @ centred.T if n < d else centred.T @ centred
        metric = updated(features, target, C)
        update = best_time(lambda: updated(features, target, C), 1)  # noqa: B023
        one = best_time(lambda: torch.linalg.eigh(matrix), arguments.repeats)  # noqa: B023
        scores = best_time(lambda: compute_again(metric), arguments.repeats)  # noqa: B023
        run = summed_scores(features, target, C)
        summed = best_time(run, arguments.repeats)
        values = {name: float(value) for name, value in metric.compute().items()}
        gap = largest_gap(values, {name: float(value) for name, value in run().items()})
        check = largest_gap(values, reference(features, target, C)) if arguments.check else np.nan
        print(f"{n:>5} {d:>5} {C:>4} | {update:>7.3f} | {one:>7.4f} {scores:>7.4f} {max(0, scores - 0.05) / one:>8.2f} "
              f"| {summed:>7.4f} {max(0, summed - 0.05) / one:>8.2f} | {gap:>6.0e} {check:>6.0e} "
              f"{values['linear_probe_accuracy']:>6.3f}", flush=True)  # fmt: skip


def largest_gap(values: dict[str, float], others: dict[str, float]) -> float:
    return max(abs(values[name] - other) / abs(other) for name, other in others.items())


if __name__ == "__main__":
    main()
