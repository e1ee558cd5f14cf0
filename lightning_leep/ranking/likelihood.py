"""Accuracies of several sources on the same rows, with part of their sampling error taken out."""

from collections.abc import Mapping

import numpy as np

from lightning_leep.forecast.transfer_point import logit
from lightning_leep.ranking.ties import Estimate

#: Fewest sources: a line needs two, its residual variance one more.
LEAST_SOURCES = 3
#: How many times the variance that sampling makes counts as noise: few sources tell the variance of residuals only
#: roughly, and accuracies of projected layers vary more (benchmarks/ranking.py).
ROUGHLY = 3
#: Least mean negative log-likelihood whose logarithm is taken.
LEAST_LOSS = 1e-6


def likelihood_shifts(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    r"""How much accuracies move, on the logit scale, when sources that were scored on the same rows inform each other.

    A leave-one-out log-likelihood is less noisy than the share of correct rows, and both rise together. So the logit of
    a source's value is regressed on :math:`\log(-\ell_s)`, with its mean log-likelihood :math:`\ell_s`, and the
    residual :math:`e_s` is shrunk to :math:`(1 - \lambda) e_s` with :math:`\lambda = \min(1, 3 V / R)`. R is the
    variance of the residuals, V what sampling alone would make it, from the outcomes of the rows in pairs (to first
    order). If the likelihoods explain little, R is large and little moves.

    Source: regression to a line by empirical Bayes, Fay and Herriot, "Estimates of income for small places", Journal of
    the American Statistical Association 74 (1979).

    The shift is 0 for a source without outcomes or with other rows than the first that has some, and for all if there
    are fewer than 3 sources or accuracies do not rise with likelihoods.
    """
    shifts = dict.fromkeys(estimates, 0.0)
    known = {name: e for name, e in estimates.items() if e.correct is not None and e.log_likelihood is not None}
    labels = next((estimate.labels for estimate in known.values()), None)
    names = [name for name, estimate in known.items() if estimate.labels == labels]
    if len(names) < LEAST_SOURCES:
        return shifts
    correct = np.stack([np.asarray(known[name].correct) for name in names])  # [K, n]
    likelihood = np.stack([np.asarray(known[name].log_likelihood) for name in names])  # [K, n]
    kept = np.isfinite(correct).all(axis=0) & np.isfinite(likelihood).all(axis=0)
    correct, likelihood, n = correct[:, kept], likelihood[:, kept], int(kept.sum())
    accuracy, loss = (correct.sum(axis=1) + 0.5) / (n + 1), np.maximum(-likelihood.mean(axis=1), LEAST_LOSS)  # [K]
    y, x = np.array([logit(known[name].value, n) for name in names]), np.log(loss)
    centred = x - x.mean()
    slope = centred @ y / (centred @ centred) if np.ptp(x) else 0.0
    if slope >= 0:
        return shifts
    residuals = y - y.mean() - slope * centred  # [K]
    influence = (correct - accuracy[:, None]) / (accuracy * (1 - accuracy))[:, None]
    influence -= slope * (likelihood + loss[:, None]) / -loss[:, None]  # of a row on the residual, times n
    influence -= influence.mean(axis=0)
    sources = len(names)
    dependence = 1 + np.mean([known[name].dependence for name in names])
    by_sampling = dependence * np.square(influence).sum() / (n * n * (sources - 1))
    among_sources = np.square(residuals).sum() / (sources - 2)
    share = min(1.0, ROUGHLY * by_sampling / among_sources) if among_sources else 0.0
    return shifts | {name: float(-share * e) for name, e in zip(names, residuals, strict=True)}
