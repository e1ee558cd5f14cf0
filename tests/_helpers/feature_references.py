"""Feature scores from their definitions in NumPy, dense and slow. No code of the library is used here."""

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.covariance import LedoitWolf

#: Candidates of the linear probe, as its documentation states them.
SHRINKAGES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.6, 0.9)
SCALES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def reference_h_score(features: np.ndarray, labels: np.ndarray, shrinkage: bool) -> float:
    """tr(cov(f)^+ cov(E[f|y])) (Bao et al. 2019); shrunk (1 - a) tr(cov_a(f)^-1 cov(E[f|y])) (Ibrahim et al. 2021)."""
    centred = features - features.mean(axis=0)
    means = np.stack([centred[labels == label].mean(axis=0) for label in labels])  # [n, d]
    between = means.T @ means / len(labels)
    if not shrinkage:
        return float(np.trace(np.linalg.pinv(centred.T @ centred / len(labels), hermitian=True) @ between))
    estimate = LedoitWolf().fit(features)
    return float((1 - estimate.shrinkage_) * np.trace(np.linalg.solve(estimate.covariance_, between)))


def reference_log_me(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean over classes of max log N(y; 0, (I + t FF') / beta) / n (You et al. 2021), dense: n x n matrices.

    For a given t the best beta is n / (y' (I + t FF')^-1 y); t is searched over 40 e-folds.
    """
    n, gram = len(labels), features @ features.T

    def evidence(log_ratio: float, y: np.ndarray) -> float:
        covariance = np.eye(n) + np.exp(log_ratio) * gram
        misfit = y @ np.linalg.solve(covariance, y)
        return -0.5 * (np.log(2 * np.pi * misfit / n) + 1 + np.linalg.slogdet(covariance)[1] / n)

    values = []
    for label in np.unique(labels):
        y = (labels == label).astype(float)
        # No further than a signal 1e10 times the noise, as the library's documentation says.
        high = np.log(1e10 / features.var(axis=0).sum())
        grid = np.linspace(high - 40, high, 161)
        best = grid[np.argmax([evidence(t, y) for t in grid])]
        bounds = (max(best - 0.5, grid[0]), min(best + 0.5, high))
        found = minimize_scalar(
            lambda t, y=y: -evidence(t, y), bounds=bounds, method="bounded", options={"xatol": 1e-9}
        )
        values.append(max(-found.fun, evidence(best, y)))
    return float(np.mean(values))


def scatter_within(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Sum of the outer products of the rows about their class means."""
    residuals = np.stack(
        [row - features[labels == label].mean(axis=0) for row, label in zip(features, labels, strict=True)]
    )
    return residuals.T @ residuals


def reference_probe_scores(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correctness and log posterior ``[rows counted, shrinkages, scales]``, from n discriminants of n - 1 rows each.

    Discriminant of rows X with K classes present: class means mu_k, covariance ((1 - a) S + a tr(S_all) / d I) /
    max(1, degrees of freedom), posterior ~ frequency_k exp(-scale / 2 (x - mu_k)' covariance^-1 (x - mu_k)); the
    frequencies and tr(S_all) are those of all rows.
    """
    x, (classes, counts) = features - features.mean(axis=0), np.unique(labels, return_counts=True)
    places = np.searchsorted(classes, labels)
    identity = np.trace(scatter_within(x, labels)) / x.shape[1] * np.eye(x.shape[1])
    scores = []  # [rows * shrinkages * scales, 2]
    for i in np.flatnonzero(counts[places] > 1):
        rest, y = np.delete(x, i, axis=0), np.delete(labels, i)
        within, freedom = scatter_within(rest, y), max(1, len(y) - len(classes))
        deviations = x[i] - np.stack([rest[y == label].mean(axis=0) for label in classes])  # [K, d]
        for shrinkage in SHRINKAGES:
            covariance = ((1 - shrinkage) * within + shrinkage * identity) / freedom
            distances = (deviations * np.linalg.solve(covariance, deviations.T).T).sum(axis=1)  # [K]
            for scale in SCALES:
                z = np.log(counts / len(x)) - scale / 2 * distances
                z -= z.max() + np.log(np.exp(z - z.max()).sum())
                scores.append((float(z.argmax() == places[i]), z[places[i]]))
    correct, posterior = np.transpose(scores).reshape(2, -1, len(SHRINKAGES), len(SCALES))
    return correct, posterior


def reference_probe(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Leave-one-out linear discriminant, refitted for every row, under the names of the library's report."""
    correct, posterior = reference_probe_scores(features, labels)
    means = posterior.mean(axis=0)
    best = np.unravel_index(means.argmax(), means.shape)
    chosen, counted = correct[:, *best], labels[np.bincount(labels)[labels] > 1]
    return {
        "linear_probe_accuracy": chosen.mean(),
        "linear_probe_balanced_accuracy": np.mean([chosen[counted == k].mean() for k in np.unique(counted)]),
        "linear_probe_accuracy_standard_error": chosen.std(ddof=1) / np.sqrt(len(chosen)),
        "linear_probe_log_likelihood": means[best],
        "linear_probe_samples": len(chosen),
        "linear_probe_shrinkage": SHRINKAGES[best[0]],
    }


def reference_nearest_neighbours(features: np.ndarray, y: np.ndarray) -> float:
    """Leave-one-out accuracy of the vote of all rows that are as near, by cosine, as the fifth; a tie counts 1/k."""
    found = []
    for i, row in enumerate(features):
        if (y == y[i]).sum() < 2:
            continue
        cosines = features @ row / (np.linalg.norm(features, axis=1) * np.linalg.norm(row))
        cosines[i] = -np.inf
        near = cosines >= np.sort(cosines)[-min(5, len(y) - 1)] - 1e-13
        votes = np.bincount(y[near], minlength=y.max() + 1)
        found.append((votes[y[i]] == votes.max()) / (votes == votes.max()).sum())
    return float(np.mean(found))
