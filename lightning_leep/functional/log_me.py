"""LogME: logarithm of the maximum evidence of linear models from features to labels."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_leep.functional.feature_space import FeatureSpace, space_of
from lightning_leep.functional.inputs import feature_rows

#: Largest ratio of a row's prior signal variance to the noise variance. If the features reproduce the labels exactly,
#: the evidence has no bound as the noise vanishes; this limit keeps it finite, whatever the units of the features.
MAX_SIGNAL_TO_NOISE = 1e10

#: Golden-section steps within 2 e-folds. They and a parabola find the evidence, which is flat there, up to rounding.
REFINEMENTS = 14


def log_me(features: Tensor, target: Tensor, num_target_classes: int, ignore_index: int | None = None) -> Tensor:
    r"""LogME of features: maximum log evidence per row of one class against the rest, mean over the classes present.

    The 0/1 labels y of a class are modelled as :math:`y \sim N(Fw, \beta^{-1} I)`, :math:`w \sim N(0, \alpha^{-1} I)`
    on the raw features F ``[n, d]``, and

    .. math::
        \text{LogME} = \frac{1}{|\{k: n_k > 0\}|} \sum_k \max_{\alpha, \beta} \frac1n
            \log N\big(y^{(k)}; 0,\ \beta^{-1} I + \alpha^{-1} F F^\top\big)

    The paper iterates the conditions for a stationary point from :math:`\alpha = \beta = 1`. This may end in a local
    maximum (features with a large mean have two), and it does not converge if the maximum is a limit.
    Here the same evidence is maximised directly: for a given :math:`t = \beta / \alpha` the best :math:`\beta` is
    :math:`n / (y^\top (I + t F F^\top)^{-1} y)`, and the maximum over t is searched on a grid and refined. t is bounded
    by a signal-to-noise ratio of 1e10, which matters only if the features reproduce the labels exactly and the evidence
    would be infinite. A class without a row is left out: its evidence is infinite for any features.

    Higher is better. Natural logarithm (nats per row); it may be positive. Rotating all features, or scaling them by
    one factor, does not change it. It is a density whose level depends on the number of classes and their balance, so
    it compares sources on one target, not targets.

    Source: You, Liu, Wang, Long, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021
    (arXiv:2102.11005).

    Arguments, result (0-d, in nats per row) and errors are as for
    :func:`~lightning_leep.functional.h_score.h_score`.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0, 1.0], [0.2, 0.0], [1.0, 0.5], [1.2, 0.6], [0.1, 0.9]])
        >>> target = torch.tensor([0, 0, 1, 1, 0])
        >>> round(log_me(features, target, num_target_classes=2).item(), 4)
        -0.666
    """
    rows, labels = feature_rows(features, target, num_target_classes, ignore_index=ignore_index, two_for="LogME")
    return log_me_of_space(space_of(rows, labels, num_target_classes))


def log_me_of_space(space: FeatureSpace) -> Tensor:
    """LogME from the space of all rows, see `log_me`."""
    evidence = ProfileEvidence(space)
    lowest, highest = evidence.search_range()
    steps = max(2, math.ceil(highest - lowest) + 1)  # of at most one e-fold
    grid = torch.linspace(lowest, highest, steps, dtype=evidence.share.dtype, device=evidence.share.device)  # [T]
    # At t = 0, the limit below the grid, the features are not used at all.
    values = evidence.of_all_classes(torch.cat([grid.new_zeros(1), grid.exp()]))  # [K, 1 + T]
    best, where = values.max(dim=1)  # [K]
    where = grid[(where - 1).clamp(min=0)]
    low, high = (where - 1).clamp(min=lowest), (where + 1).clamp(max=highest)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = evidence(left.exp()), evidence(right.exp())
    for _ in range(REFINEMENTS):
        best = torch.maximum(best, torch.maximum(at_left, at_right))
        rising = at_left < at_right  # if so, the next interval is [left, high], and `right` becomes its left point
        low, high = torch.where(rising, left, low), torch.where(rising, high, right)
        new = torch.where(rising, low + golden * (high - low), high - golden * (high - low))
        at_new = evidence(new.exp())
        left, right = torch.where(rising, right, new), torch.where(rising, new, left)
        at_left, at_right = torch.where(rising, at_right, at_new), torch.where(rising, at_new, at_left)
    middle = (left + right) / 2
    at_middle = evidence(middle.exp())
    bend, slope = at_left - 2 * at_middle + at_right, at_right - at_left
    vertex = torch.where(bend < 0, middle - (right - middle) * slope / (2 * bend), middle)
    vertex = torch.minimum(torch.maximum(vertex, low), high)
    return torch.stack([best, at_left, at_middle, at_right, evidence(vertex.exp())]).amax(dim=0).mean()


class ProfileEvidence:
    r"""Log evidence per row of each present class as a function of :math:`t = \beta / \alpha`, at its best noise level.

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

    def __init__(self, space: FeatureSpace) -> None:
        values, _ = space.spectrum
        dtype, spans = values.dtype, values > 0
        self.num_rows = space.num_rows.to(dtype)
        present = space.class_counts > 0
        self.rows_of_class = space.class_counts[present].to(dtype)  # [K]
        self.share = self.rows_of_class / self.num_rows  # [K]
        class_sums, mean = space.aligned  # [C, p], [p]
        spectrum = values[spans]  # [r], lambda
        labels = class_sums[present][:, spans] / spectrum.sqrt()  # [K, r], x
        # Directions that say nothing fill groups of 8, see `_log_determinant`; float32 would overflow beyond 2.
        self.group = 8 if dtype == torch.float64 else 2
        fill = (0, -len(spectrum) % self.group)
        self.spectrum = pad(spectrum, fill)
        self.mean = pad(mean[spans].square(), fill)  # [r], c^2
        self.mean_outside = mean[~spans].square().sum() + space.mean_outside  # of directions where lambda is 0
        self.cross = pad(mean[spans] * spectrum.sqrt() * labels, fill)  # [K, r]
        self.labels = pad(labels.square(), fill)  # [K, r], x^2
        variation = self.rows_of_class * (1 - self.share)  # [K], squared norm of the centred labels
        unreached = variation - self.labels.sum(dim=1)
        # If V reproduces the labels exactly, the rest is rounding error, which must not count as noise.
        exact = unreached <= 1e4 * torch.finfo(dtype).eps * variation
        self.unreached = torch.where(exact, 0.0, unreached)  # [K], r_0

    def __call__(self, ratio: Tensor) -> Tensor:
        """``[K]`` values at ``ratio`` t ``[K]``, one for each class."""
        raised = ratio.unsqueeze(1) * self.spectrum + 1  # [K, r]
        shrink = 1 / raised
        return self._evidence(
            ratio,
            shrink @ self.mean,
            (self.cross * shrink).sum(dim=1),
            (self.labels * shrink).sum(dim=1),
            self._log_determinant(raised),
        )

    def of_all_classes(self, ratios: Tensor) -> Tensor:
        """``[K, T]`` values of every class at every one of ``ratios [T]``."""
        raised = ratios.unsqueeze(1) * self.spectrum + 1  # [T, r]
        shrink = 1 / raised
        with torch.autocast(device_type=shrink.device.type, enabled=False):
            lever, determinant = shrink @ self.mean, self._log_determinant(raised)  # [T]
            fitted, misfit = shrink @ self.cross.T, shrink @ self.labels.T  # [T, r] @ [r, K]
        ratios, lever, determinant = (value.unsqueeze(1) for value in (ratios, lever, determinant))  # [T, 1]
        return self._evidence(ratios, lever, fitted, misfit, determinant).T

    def _log_determinant(self, raised: Tensor) -> Tensor:
        """Sum over the last dimension of the logarithms of 1 + t lambda: of products, as logarithms take longest."""
        return raised.unflatten(1, (self.group, -1)).prod(dim=1).log().sum(dim=1)

    def _evidence(self, ratio: Tensor, lever: Tensor, fitted: Tensor, misfit: Tensor, determinant: Tensor) -> Tensor:
        lever = self.num_rows * ratio * (lever + self.mean_outside)  # h
        misfit = self.unreached + misfit + self.num_rows * (self.share - ratio * fitted).square() / (1 + lever)  # Q
        determinant = determinant + torch.log1p(lever)
        return -0.5 * ((2 * math.pi * misfit / self.num_rows).log() + 1 + determinant / self.num_rows)

    def search_range(self) -> tuple[float, float]:
        """Least and largest log t: from almost unused features to `MAX_SIGNAL_TO_NOISE`."""
        varying = float(self.spectrum.sum() / self.num_rows)
        constant = float(self.mean.sum() + self.mean_outside)
        if not varying + constant > 0:  # all features are zero: every t gives the same
            return 0.0, 0.0
        lowest = math.log(1e-8 / (float(self.num_rows) * (varying + constant)))
        return lowest, math.log(MAX_SIGNAL_TO_NOISE / (varying if varying > 0 else constant))
