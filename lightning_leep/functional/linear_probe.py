r"""Leave-one-out accuracy of a linear discriminant on features: the accuracy to expect of a re-trained head.

The discriminant is a function of the feature moments alone (fixed size, additive over batches and processes); its
leave-one-out scores are sums over rows. Distributed, a process pools the moments, scores its own rows against them
(:func:`linear_probe_sums`), pools the sums and reads the result off them (:func:`linear_probe_result`).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_leep.functional.chunks import row_chunks
from lightning_leep.functional.features import check_features, flatten_features
from lightning_leep.functional.moments import (
    FeatureMoments,
    feature_moments,
    recentre_moments,
    within_scatter,
)

#: Shrinkages that are tried, as the share of the identity in the covariance.
SHRINKAGES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.6, 0.9)
#: Scales of the log-odds that are tried, each twice the one before: estimated covariances make the odds too extreme.
SCALES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
#: Scores of a row: for each pair of shrinkage and scale, whether it is predicted correctly and its log-likelihood.
NUM_PROBE_SCORES = 2 * len(SHRINKAGES) * len(SCALES)


class LinearProbe(NamedTuple):
    """What a leave-one-out linear discriminant achieves: 0-d tensors, float64 where the device has it."""

    accuracy: Tensor  #: fraction of the counted rows that are predicted correctly, a tie of k classes counting 1/k
    standard_error: Tensor  #: of the accuracy, as a mean over ``num_rows`` rows
    log_likelihood: Tensor  #: mean log posterior of the own class, in nats
    num_correct: Tensor  #: rows predicted correctly, with the fractions of ties
    num_rows: Tensor  #: rows that are counted, int64
    num_excluded: Tensor  #: rows left out because they are the only one of their class, int64
    shrinkage: Tensor  #: chosen share of the identity in the covariance
    scale: Tensor  #: chosen scale of the log-odds


class LinearDiscriminant(NamedTuple):
    """Linear discriminant in the eigenbasis of the within-class covariance, where every shrinkage is diagonal."""

    centre: Tensor  #: ``[d]``, mean of all rows
    basis: Tensor  #: ``[d, d]``, eigenvectors as columns
    variances: Tensor  #: ``[d]``, eigenvalues of the within-class covariance
    mean_variance: Tensor  #: ``[]``, what the identity is multiplied with
    degrees_of_freedom: Tensor  #: ``[]``, rows less classes present
    class_position: Tensor  #: ``[C]`` int64, place of a class among the K classes present
    class_means: Tensor  #: ``[K, d]``, in the eigenbasis
    class_counts: Tensor  #: ``[K]``

    def to(self, device: torch.device) -> "LinearDiscriminant":
        """The same discriminant on another device."""
        return LinearDiscriminant(*(value.to(device) for value in self))


def linear_discriminant(moments: FeatureMoments) -> LinearDiscriminant:
    """Linear discriminant of the rows that ``moments`` were taken of, by one symmetric eigendecomposition."""
    centred = recentre_moments(moments)
    present = moments.class_counts > 0  # [C]
    counts = moments.class_counts[present].to(centred.scatter.dtype)  # [K]
    num_rows, num_features = counts.sum().clamp(min=1), centred.scatter.shape[0]
    freedom = (num_rows - counts.numel()).clamp(min=1)
    covariance = within_scatter(moments) / freedom  # [d, d]
    # MPS has no eigendecomposition.
    solver = covariance.cpu() if covariance.device.type == "mps" else covariance
    variances, basis = (value.to(covariance.device) for value in torch.linalg.eigh(solver))  # [d], [d, d]
    class_means = centred.class_sums[present] / counts.unsqueeze(1) @ basis  # [K, d]
    # Classes without any spread are told apart as far as rounding allows; without any spread at all there is one point.
    rounding = centred.scatter.diagonal().sum() / num_rows * 1e3 * torch.finfo(counts.dtype).eps
    total = torch.maximum(variances.clamp(min=0).sum(), rounding)
    return LinearDiscriminant(
        centre=centred.centre,
        basis=basis,
        variances=variances.clamp(min=0),
        mean_variance=torch.where(total > 0, total / num_features, 1.0),
        degrees_of_freedom=freedom,
        class_position=(present.cumsum(0) - 1).clamp(min=0),
        class_means=class_means,
        class_counts=counts,
    )


def squared_distances(rows: Tensor, position: Tensor, discriminant: LinearDiscriminant, shrinkage: float) -> Tensor:
    r"""Squared Mahalanobis distance of each row to each class, from the discriminant that has not seen the row.

    Without row i, its class mean is :math:`\mu - r_i / (n_k - 1)` and the scatter :math:`S - a_i r_i r_i^\top` with
    :math:`r_i = x_i - \mu`, :math:`a_i = n_k / (n_k - 1)`. The added :math:`\lambda I`,
    :math:`\lambda = \alpha \, \mathrm{tr} S / d`, is held fixed. With :math:`A = ((1 - \alpha) S + \lambda I)^{-1}`,
    Sherman-Morrison gives :math:`A_{-i} = A + g_i (A r_i)(A r_i)^\top`,
    :math:`g_i = b_i / (1 - b_i r_i^\top A r_i)`, :math:`b_i = (1 - \alpha) a_i`. The covariance is the inverse of A
    over the degrees of freedom, of which the row takes one.

    Args:
        rows: ``[m, d]``, centred and in the eigenbasis.
        position: ``[m]``, places of their classes, which have at least 2 rows each.
        discriminant: From moments that include the rows.
        shrinkage: :math:`\alpha`, above 0.

    Returns:
        ``[m, K]``.
    """
    freedom = discriminant.degrees_of_freedom
    precision = 1 / ((1 - shrinkage) * discriminant.variances + shrinkage * discriminant.mean_variance)  # [d]
    means = discriminant.class_means  # [K, d]
    leverage = discriminant.class_counts[position]
    leverage = leverage / (leverage - 1)  # [m], a
    weight = (1 - shrinkage) / freedom * leverage  # [m], b in units of the covariance
    residuals = rows - means[position]  # [m, d]
    weighted_rows, weighted_residuals = rows * precision, residuals * precision  # [m, d]
    own = (weighted_residuals * residuals).sum(dim=1)  # [m], r'Ar
    # b r'Ar is below 1 by the shrunk part; the bound only meets rounding.
    remaining = (1 - weight * own).clamp(min=1e-12)
    distances = (weighted_rows * rows).sum(dim=1, keepdim=True) - 2 * (weighted_rows @ means.T)  # [m, K]
    distances += (means.square() * precision).sum(dim=1)
    across = (weighted_residuals * rows).sum(dim=1, keepdim=True) - weighted_residuals @ means.T  # [m, K]
    distances += (weight / remaining).unsqueeze(1) * across.square()
    distances.scatter_(1, position.unsqueeze(1), (leverage.square() * own / remaining).unsqueeze(1))
    return distances * (freedom - 1).clamp(min=1) / freedom


def linear_probe_sums(features: Tensor, target: Tensor, discriminant: LinearDiscriminant) -> Tensor:
    """Leave-one-out scores of rows under every candidate, summed: all that :func:`linear_probe_result` needs of them.

    Args:
        features: ``[n, d]``, among the rows that the discriminant was made from.
        target: ``[n]`` integer labels.
        discriminant: On the device of the features.

    Returns:
        ``[3, NUM_PROBE_SCORES]``: number, sum and sum of squares of the scores, first those of correctness, then the
        log-likelihoods, each over shrinkages x scales. Rows that are the only one of their class are left out.
    """
    counts, means = discriminant.class_counts, discriminant.class_means
    frequency = counts / counts.sum()  # [K]
    size = (2, len(SHRINKAGES), len(SCALES))
    sums, squares, num_rows = means.new_zeros(size), means.new_zeros(size), 0
    for chunk, labels in row_chunks(features, target, width=means.shape[0]):
        position = discriminant.class_position[labels]  # [m]
        several = counts[position] > 1
        position = position[several]
        num_rows += position.shape[0]
        # Autocast would run the products of float32 (MPS) in half precision; it leaves float64 alone.
        with torch.autocast(device_type=features.device.type, enabled=False):
            rows = (chunk[several] - discriminant.centre) @ discriminant.basis  # [m, d]
            for i, shrinkage in enumerate(SHRINKAGES):
                distances = squared_distances(rows, position, discriminant, shrinkage)  # [m, K]
                for j, scores in enumerate(_posterior_scores(distances, position, frequency)):
                    sums[:, i, j] += scores.sum(dim=1)
                    squares[:, i, j] += scores.square().sum(dim=1)
    return torch.stack([torch.full_like(sums, num_rows), sums, squares]).flatten(1)


def _posterior_scores(distances: Tensor, position: Tensor, frequency: Tensor) -> list[Tensor]:
    """Correctness and log posterior ``[2, m]`` of each row's own class, for each of ``SCALES``."""
    own = position.unsqueeze(1)  # [m, 1]
    gaps = distances - distances.amin(dim=1, keepdim=True)  # [m, K]
    odds = (gaps * (-SCALES[0] / 2)).exp_()
    own_gap, own_frequency = gaps.gather(1, own).squeeze(1), frequency[position]  # [m]
    result = []
    for scale in SCALES:
        weighted = odds * frequency  # [m, K], posterior up to a factor
        evidence = weighted.sum(dim=1)  # at least the frequency of the nearest class
        log_posterior = own_frequency.log() - scale / 2 * own_gap - evidence.log()
        # Equal up to the rounding of the products: such a tie is shared.
        best = weighted >= weighted.amax(dim=1, keepdim=True) * (1 - 1e-12)
        correct = best.gather(1, own).squeeze(1).to(odds.dtype) / best.sum(dim=1)
        result.append(torch.stack([correct, log_posterior.clamp(max=0.0)]))
        odds.square_()  # the next scale is twice this one
    return result


def linear_probe_result(sums: Tensor, num_rows: Tensor) -> LinearProbe:
    """Choose shrinkage and scale by the leave-one-out log-likelihood and state what they achieve.

    Args:
        sums: ``[3, NUM_PROBE_SCORES]`` of :func:`linear_probe_sums`, over all rows.
        num_rows: 0-d, all rows, counted or not.

    Returns:
        Accuracy, standard error, log-likelihood, shrinkage and scale are NaN when no row is counted.
    """
    count, total, squares = sums.unflatten(1, (2, -1))  # [2, S * T] each
    best = int(total[1].argmax())
    counted, correct = count[0, best], total[0, best]
    accuracy = correct / counted
    variance = (squares[0, best] / counted - accuracy.square()).clamp(min=0.0) / (counted - 1)
    shrinkage, scale = SHRINKAGES[best // len(SCALES)], SCALES[best % len(SCALES)]
    nothing = counted == 0
    return LinearProbe(
        accuracy=accuracy,
        standard_error=variance.sqrt(),
        log_likelihood=total[1, best] / counted,
        num_correct=correct,
        num_rows=counted.long(),
        num_excluded=num_rows - counted.long(),
        shrinkage=torch.where(nothing, math.nan, accuracy.new_tensor(shrinkage)),
        scale=torch.where(nothing, math.nan, accuracy.new_tensor(scale)),
    )


def linear_probe(
    features: Tensor, target: Tensor, num_target_classes: int, ignore_index: int | None = None
) -> LinearProbe:
    r"""Leave-one-out accuracy and log-likelihood of a linear discriminant on features, exact and without a refit.

    Row i is predicted by the discriminant of the other rows: class means :math:`\mu_k`, and the within-class scatter
    shrunk to :math:`(1 - \alpha) S_{-i} + \lambda I`, :math:`\lambda = \alpha \, \mathrm{tr} S / d`, over the n - K - 1
    degrees of freedom that are left (K classes present; 1 at least). Its posterior is

    .. math::
        p_{-i}(k | x_i) \propto \tfrac{n_k}{n}
            \exp\big(-\tfrac{\tau}{2} (x_i - \mu_k)^\top \Sigma_{-i}^{-1} (x_i - \mu_k)\big)

    with the class frequencies and :math:`\lambda` of all rows. Shrinkage :math:`\alpha` and scale :math:`\tau` are the
    pair of ``SHRINKAGES`` x ``SCALES`` with the largest leave-one-out log-likelihood; :math:`\tau < 1` undoes the
    overconfidence of an estimated covariance, the more of it the fewer rows there are. Taking a row out is a rank-one
    change of S, so all n discriminants cost a few products of n x d, d x d and d x C matrices.

    A row that is the only one of its class cannot be predicted: it is excluded and counted in ``num_excluded``, while
    its class stays open to the other rows. On labels that the features say nothing about, the accuracy lies at or
    slightly below the chance level, because taking a row out moves its own class mean away from it.

    Source: leave-one-out discriminant by rank-one downdates: Lachenbruch and Mickey, "Estimation of error rates in
    discriminant analysis", Technometrics 10 (1968); shrinkage: Friedman, "Regularized discriminant analysis", Journal
    of the American Statistical Association 84 (1989).

    Args:
        features: ``[N, d]`` or ``[N, d, d1, ...]`` floating point of any dtype.
        target: ``[N]`` or ``[N, d1, ...]`` integer labels in ``0 .. num_target_classes - 1``.
        num_target_classes: C; classes without an image are allowed.
        ignore_index: Label of the rows that are left out.

    Returns:
        Accuracy with its standard error, log-likelihood, counts, and the shrinkage and scale that were chosen.

    Raises:
        TypeError: If ``features`` is not floating point or ``target`` is not integer.
        ValueError: If shapes, labels or values are invalid, or no class has 2 rows.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0, 1.0], [0.2, 0.8], [0.1, 1.2], [1.0, 0.1], [1.2, 0.0], [0.9, 0.3]])
        >>> probe = linear_probe(features, torch.tensor([0, 0, 0, 1, 1, 1]), num_target_classes=2)
        >>> probe.accuracy.item(), probe.num_rows.item()
        (1.0, 6)
    """
    check_features(features, target, num_target_classes, ignore_index=ignore_index)
    rows, labels = flatten_features(features, target, num_target_classes, ignore_index)  # [n, d], [n]
    moments = feature_moments(rows, labels, num_target_classes)
    if not bool((moments.class_counts > 1).any()):
        raise ValueError("The linear probe needs a class with at least 2 rows in `target`, got none.")
    sums = linear_probe_sums(rows, labels, linear_discriminant(moments))
    return linear_probe_result(sums, moments.num_rows)
