"""LogME: logarithm of the maximum evidence of linear models from features to labels."""

import math

import torch
from torch import Tensor

from lightning_leep.functional.features import check_features, flatten_features
from lightning_leep.functional.moments import (
    FeatureMoments,
    central_moments,
    constant_features,
    eigendecompose,
    feature_moments,
)

#: Largest ratio of a row's prior signal variance to the noise variance that is considered. Labels that features
#: reproduce exactly have unbounded evidence at ever less noise; this keeps it finite, whatever the units of features.
MAX_SIGNAL_TO_NOISE = 1e10

#: Golden-section steps within 2 e-folds: the ratio is found to 1e-6, the evidence, flat there, to rounding.
REFINEMENTS = 30


def log_me(features: Tensor, target: Tensor, num_target_classes: int, ignore_index: int | None = None) -> Tensor:
    r"""LogME of features: mean over the classes present of the maximum log evidence a row, one class against the rest.

    The 0/1 labels y of a class are modelled as :math:`y \sim N(Fw, \beta^{-1} I)`, :math:`w \sim N(0, \alpha^{-1} I)`
    on the raw features F ``[n, d]``, and

    .. math::
        \text{LogME} = \frac{1}{|\{k: n_k > 0\}|} \sum_k \max_{\alpha, \beta} \frac1n
            \log N\big(y^{(k)}; 0,\ \beta^{-1} I + \alpha^{-1} F F^\top\big)

    The paper iterates the conditions for a stationary point from :math:`\alpha = \beta = 1`, which may end in a lower
    one of several maxima (features with a large mean have two) and does not converge where the maximum is a limit.
    Here the same evidence is maximised outright: for a given :math:`t = \beta / \alpha` the best :math:`\beta` is
    :math:`n / (y^\top (I + t F F^\top)^{-1} y)`, and over t alone the maximum is searched on a grid, then refined.
    t is bounded by a signal-to-noise ratio of 1e10, which matters only where features reproduce the labels exactly
    and the evidence would be infinite. A class without a row is left out: its evidence is infinite for any features.

    Higher is better. Natural logarithm (nats a row); it may be positive. Unchanged by rotating all features or
    scaling them by one factor. It is a density: its level depends on how many classes there are and how they are
    balanced, so it compares sources on one target, not targets.

    Source: You, Liu, Wang, Long, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021
    (arXiv:2102.11005).

    Args:
        features: ``[N, d]`` or ``[N, d, d1, ...]`` floating point.
        target: ``[N]`` or ``[N, d1, ...]`` integer labels in ``0 .. num_target_classes - 1``.
        num_target_classes: C; classes without an image are allowed.
        ignore_index: Label of the rows that are left out.

    Returns:
        0-d tensor, float64 where the device has it.

    Raises:
        TypeError: If ``features`` is not floating point or ``target`` is not integer.
        ValueError: If shapes, labels or values are invalid, or fewer than 2 rows remain.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0, 1.0], [0.2, 0.0], [1.0, 0.5], [1.2, 0.6], [0.1, 0.9]])
        >>> target = torch.tensor([0, 0, 1, 1, 0])
        >>> round(log_me(features, target, num_target_classes=2).item(), 4)
        -0.666
    """
    check_features(features, target, num_target_classes, ignore_index=ignore_index)
    rows, labels = flatten_features(features, target, num_target_classes, ignore_index)  # [n, d], [n]
    if rows.shape[0] < 2:
        raise ValueError(f"LogME needs at least 2 labelled rows in `features`, got {rows.shape[0]}.")
    return log_me_from_moments(feature_moments(rows, labels, num_target_classes))


def log_me_from_moments(moments: FeatureMoments) -> Tensor:
    """LogME from feature moments, see `log_me`; NaN for moments without any row or not finite.

    Args:
        moments: Moments of all rows.

    Returns:
        0-d tensor, float64 where the device has it.
    """
    if not moments.is_finite:
        return torch.full_like(moments.quartic, torch.nan)
    evidence = ProfileEvidence(moments)
    lowest, highest = evidence.search_range()
    # t = 0, features that are not used at all, is the limit below the grid.
    best, where = evidence(evidence.spectrum.new_zeros(1, 1)), torch.full_like(evidence.rows_of_class, lowest)
    grid = torch.linspace(lowest, highest, max(2, math.ceil(highest - lowest) + 1)).tolist()
    for log_ratio in grid:  # steps of at most one e-fold
        value = evidence(torch.full_like(best[:1], math.exp(log_ratio)).unsqueeze(1))
        where = torch.where(value > best, log_ratio, where)
        best = torch.maximum(value, best)
    low, high = (where - 1).clamp(min=lowest), (where + 1).clamp(max=highest)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(REFINEMENTS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        values = evidence(left.exp().unsqueeze(1)), evidence(right.exp().unsqueeze(1))
        best = torch.maximum(best, torch.maximum(*values))
        rising = values[0] < values[1]
        low, high = torch.where(rising, left, low), torch.where(rising, high, right)
    return best.mean()


class ProfileEvidence:
    r"""Log evidence a row of each present class as a function of :math:`t = \beta / \alpha`, at its best noise level.

    .. math::
        \frac1n L(t) = -\frac12 \Big(\log \frac{2 \pi Q(t)}{n} + 1 + \frac1n \log\det(I + t F F^\top)\Big), \qquad
        Q(t) = y^\top (I + t F F^\top)^{-1} y

    The paper decomposes F itself. Here F is its centred part V and a rank-one part, the mean m, since the spectrum of
    :math:`F^\top F` loses all of V's digits when m is large: with :math:`V^\top V = U \Lambda U^\top`,
    :math:`x = \Lambda^{-1/2} U^\top V^\top y`, :math:`c = U^\top m`, the Schur complement of the mean gives

    .. math::
        Q(t) = r_0 + \sum_j \frac{x_j^2}{1 + t \lambda_j} + \frac{n g^2}{1 + h}, \quad
        g = \bar y - \sum_j \frac{t c_j \sqrt{\lambda_j} x_j}{1 + t \lambda_j}, \quad
        h = n \sum_j \frac{t c_j^2}{1 + t \lambda_j}

    and :math:`\log\det = \sum_j \log(1 + t \lambda_j) + \log(1 + h)`, with :math:`r_0` the part of the centred labels
    that V cannot reach: sums of positive terms of size d, nothing cancels.
    """

    def __init__(self, moments: FeatureMoments) -> None:
        centred = central_moments(moments)
        dtype = centred.scatter.dtype
        self.num_rows = moments.num_rows.to(dtype)
        present = moments.class_counts > 0
        self.rows_of_class = moments.class_counts[present].to(dtype)  # [K]
        with torch.autocast(device_type=centred.scatter.device.type, enabled=False):
            self.spectrum, vectors = eigendecompose(
                centred.scatter, ~constant_features(centred)
            )  # lambda [d], U [d, d]
            self.mean = centred.mean @ vectors  # [d], c
            along = centred.class_sums[present] @ vectors  # [K, d]
        self.labels = torch.where(self.spectrum > 0, along / self.spectrum.sqrt(), 0.0)  # [K, d], x
        share = self.rows_of_class / self.num_rows  # [K]
        variation = self.rows_of_class * (1 - share)  # [K], squared norm of the centred labels
        unreached = variation - self.labels.square().sum(dim=1)
        # What is left of labels that V reproduces exactly is rounding error; it would pass for noise.
        exact = unreached <= 1e4 * torch.finfo(dtype).eps * variation
        self.unreached = torch.where(exact, 0.0, unreached)  # [K], r_0
        self.share = share

    def __call__(self, ratio: Tensor) -> Tensor:
        """``[K]`` values at ``ratio`` t, ``[1, 1]`` for all classes or ``[K, 1]`` for each its own."""
        shrink = 1 / (1 + ratio * self.spectrum)  # [1 or K, d]
        lever = self.num_rows * (ratio * self.mean.square() * shrink).sum(dim=1)  # h
        fitted = (ratio * self.mean * self.spectrum.sqrt() * self.labels * shrink).sum(dim=1)  # [K]
        misfit = self.unreached + (self.labels.square() * shrink).sum(dim=1)
        misfit = misfit + self.num_rows * (self.share - fitted).square() / (1 + lever)  # Q
        determinant = torch.log1p(ratio * self.spectrum).sum(dim=1) + torch.log1p(lever)
        return -0.5 * ((2 * math.pi * misfit / self.num_rows).log() + 1 + determinant / self.num_rows)

    def search_range(self) -> tuple[float, float]:
        """Least and largest log t: from features all but unused to `MAX_SIGNAL_TO_NOISE`."""
        varying = float(self.spectrum.sum() / self.num_rows)
        constant = float(self.mean.square().sum())
        if not varying + constant > 0:  # all features are zero: any t gives the same
            return 0.0, 0.0
        lowest = math.log(1e-8 / (float(self.num_rows) * (varying + constant)))
        return lowest, math.log(MAX_SIGNAL_TO_NOISE / (varying if varying > 0 else constant))
