"""Prediction intervals that do not assume a distribution of the errors: the jackknife+."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Predict: TypeAlias = Callable[[Array], Array]
Fit: TypeAlias = Callable[[Array, Array, Array], Predict]


def min_records(coverage: float) -> int:
    """Return the smallest number of records for a finite interval: the smallest n with (n + 1) coverage <= n."""
    check_coverage(coverage)
    return max(1, math.ceil(_robust(coverage / (1 - coverage))))


def check_coverage(coverage: float) -> None:
    """Raise ``ValueError`` unless ``coverage`` is strictly between 0 and 1."""
    if not 0 < coverage < 1:
        raise ValueError(f"`coverage` must lie strictly between 0 and 1, got {coverage!r}.")


def normal_quantile(coverage: float) -> float:
    """Return half the length of the central interval of a standard normal distribution."""
    return NormalDist().inv_cdf((1 + coverage) / 2)


def jackknife_plus(predictions: Array, residuals: Array, coverage: float) -> tuple[float, float]:
    r"""Return the jackknife+ interval at a new point; infinite with fewer than :func:`min_records` records.

    With :math:`\hat\mu_{-i}` fitted without record i, :math:`R_i = |y_i - \hat\mu_{-i}(x_i)|` (``residuals [n]``, on
    the scale of the new point) and :math:`\alpha = 1 - \text{coverage}`, the interval is (Barber, Candès, Ramdas,
    Tibshirani, "Predictive inference with the jackknife+", Annals of Statistics 2021)

    .. math::
        \Bigl[\;\lfloor \alpha (n + 1) \rfloor\text{-th smallest of } \hat\mu_{-i}(x) - R_i,\quad
        \lceil (1 - \alpha)(n + 1) \rceil\text{-th smallest of } \hat\mu_{-i}(x) + R_i \;\Bigr].

    If the records and the new point are exchangeable and the fit ignores the order of the records, it contains the
    answer with probability at least :math:`1 - 2\alpha` (Theorem 1), and in practice about :math:`1 - \alpha`.
    """
    check_coverage(coverage)
    n = len(predictions)
    rank = math.ceil(_robust(coverage * (n + 1)))
    if rank > n:
        return -math.inf, math.inf
    # floor(alpha (n + 1))-th smallest = rank-th largest, as floor(n + 1 - x) = n + 1 - ceil(x).
    low = -np.sort(residuals - predictions)[rank - 1]
    high = np.sort(predictions + residuals)[rank - 1]
    return float(low), float(high)


def leave_one_out(fit: Fit, x: Array, y: Array, scale: Array, x_new: Array) -> tuple[Array, Array]:
    """Refit without each record: predictions ``[n]`` for a new point ``[p]``, absolute residuals in units of the scale.

    ``fit`` takes records ``x [m, p]``, their answers ``y [m]`` and the expected sizes ``scale [m]`` of their errors, a
    function of ``x`` only, and returns a function from ``x [k, p]`` to answers ``[k]``.
    """
    n = len(y)
    predictions, residuals = np.empty(n), np.empty(n)
    for i in range(n):
        keep = np.arange(n) != i
        own, predictions[i] = fit(x[keep], y[keep], scale[keep])(np.stack([x[i], x_new]))
        residuals[i] = abs(y[i] - own) / scale[i]
    return predictions, residuals


def _robust(value: float) -> float:
    """Remove the last rounding error of a product such as 0.9 * 10, so that a ceiling does not add a whole rank."""
    return round(value, 9)
