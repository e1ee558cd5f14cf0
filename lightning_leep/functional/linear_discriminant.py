"""Linear discriminant of labelled features, and the distances of each row under the discriminant of the other rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_leep.functional.chunks import row_chunks
from lightning_leep.functional.feature_space import FeatureSpace, eigendecompose, solvable

#: Shrinkages that are tried, as the share of the identity in the covariance.
SHRINKAGES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.6, 0.9)

#: Share of the total variance, for each feature and machine epsilon, up to which the variance within classes cannot be
#: told from rounding: even the least shrinkage then gives distances between equal points of less than 0.01.
ABSENT_WITHIN = 1e6

#: Least share of the scatter, in any direction, that must lie within classes: the correction then has eight digits.
LEAST_WITHIN = 1e-7


class LinearDiscriminant(NamedTuple):
    r"""Linear discriminant in an eigenbasis where every shrinkage of the covariance is diagonal, or nearly so.

    The basis is that of the within-class scatter S, or that of the total scatter :math:`T = S + R^\top R` if that is
    already known. Then :math:`P = ((1 - \alpha) T + \lambda I)^{-1}` is diagonal, and
    :math:`A = ((1 - \alpha) S + \lambda I)^{-1}` follows from it and the K class means M:
    :math:`M A = \Phi M P` and :math:`A = P + \rho P M^\top N \Phi M P`, with
    :math:`\Phi = (I - \rho M P M^\top N)^{-1}`, :math:`N = \mathrm{diag}(n_k)`.
    """

    centre: Tensor | None  #: ``[d]``, mean of all rows; None if rows are given about it
    basis: Tensor  #: ``[d, p]``, eigenvectors as columns
    rest: Tensor | None  #: ``[p]``, exact mean minus ``centre``, in the eigenbasis
    precisions: Tensor  #: ``[S, p]``, inverse eigenvalues of the covariance under each shrinkage, A or P
    degrees_of_freedom: Tensor  #: ``[]``, rows minus classes present
    class_position: Tensor  #: ``[C]`` int64, place of a class among the K classes present
    class_means: Tensor  #: ``[K, p]``, in the eigenbasis, M
    class_counts: Tensor  #: ``[K]``, N
    class_norms: Tensor  #: ``[S, K]``, diagonal of M A M' under each shrinkage
    corrections: Tensor | None = None  #: ``[S, K, K]``, Phi, if A is not diagonal
    products: Tensor | None = None  #: ``[2, S, K, K]``, M P M' and M A M', if A is not diagonal


def linear_discriminant(space: FeatureSpace) -> LinearDiscriminant:
    """Linear discriminant of the rows of a space, for features or, if the space was made from rows, for its rows."""
    # Operations of a decomposition of size p, against those of a correction for every row and class.
    size, classes = len(space.scatter), int((space.class_counts > 0).sum())
    corrected = 10 * size**3 > len(SHRINKAGES) * int(space.num_rows) * classes * (2 * classes + 200)
    if "spectrum" in vars(space) and corrected:  # it is known already
        found = _discriminant(space, *space.spectrum, of_total=True)
        if found is not None:
            return found
    roots = space.class_roots  # [C, p]
    with torch.autocast(device_type=roots.device.type, enabled=False):
        within = torch.addmm(space.scatter, roots.T, roots, alpha=-1)  # [p, p] - [p, C] @ [C, p]
    found = _discriminant(space, *eigendecompose(within), of_total=False)
    assert found is not None
    return found


def _discriminant(space: FeatureSpace, variances: Tensor, axes: Tensor, of_total: bool) -> LinearDiscriminant | None:
    """Discriminant along eigenvectors of the within-class or total scatter; None if it would not be exact enough."""
    present = space.class_counts > 0  # [C]
    counts = space.class_counts[present].to(variances.dtype)  # [K]
    num_rows = counts.sum().clamp(min=1)
    freedom = (num_rows - counts.numel()).clamp(min=1)
    with torch.autocast(device_type=variances.device.type, enabled=False):
        class_sums = space.aligned[0][present] if of_total else space.class_sums[present] @ axes  # [K, p]
        means = class_sums / counts.unsqueeze(1)
        between = (counts @ means.square()).sum() if of_total else 0.0
        # Classes without spread are told apart as far as rounding allows; without any spread there is one point.
        eps = torch.finfo(counts.dtype).eps
        least = max(1e3 * eps, min(ABSENT_WITHIN * space.num_features * eps, 1e-6))
        rounding = space.scatter.diagonal().sum() / num_rows * least
        total = torch.maximum((variances.sum() - between) / freedom, rounding)
        mean_variance = torch.where(total > 0, total / space.num_features, 1.0)
        shares = variances.new_tensor(SHRINKAGES).unsqueeze(1)  # [S, 1]
        precisions = 1 / ((1 - shares) * (variances / freedom) + shares * mean_variance)  # [S, p]
        corrections, products = None, None
        if of_total:
            roots = counts.sqrt()
            plain = torch.stack([means * precision @ means.T for precision in precisions])  # [S, K, K]
            explained = (1 - shares).unsqueeze(2) / freedom * plain * roots * roots.unsqueeze(1)
            triangle, fault = torch.linalg.cholesky_ex(solvable(torch.eye(len(counts)).to(plain) - explained))
            inverse = torch.cholesky_inverse(triangle).to(plain.device)
            if bool(fault.any()) or not bool(torch.linalg.matrix_norm(inverse).max() * LEAST_WITHIN <= 1):
                return None
            corrections = inverse * roots / roots.unsqueeze(1)
            products = torch.stack([plain, corrections @ plain])  # [2, S, K, K]
            norms = products[1].diagonal(dim1=1, dim2=2)  # [S, K]
        else:
            norms = precisions @ means.square().T  # [S, p] @ [p, K]
        if space.basis is not None:
            axes = space.basis @ axes  # [d, q] @ [q, p]
        elif space.rows is None:
            axes = axes * (space.variances > 0).unsqueeze(1)
        rest = None if space.rest is None else space.rest @ axes  # [d] @ [d, p]
    return LinearDiscriminant(
        centre=None if space.rows is not None else space.centre,
        basis=axes,
        rest=rest,
        precisions=precisions,
        degrees_of_freedom=freedom,
        class_position=(present.cumsum(0) - 1).clamp(min=0),
        class_means=means,
        class_counts=counts,
        class_norms=norms,
        corrections=corrections,
        products=products,
    )


def leave_one_out_distances(
    features: Tensor, target: Tensor, discriminant: LinearDiscriminant, shrinkages: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]]:
    r"""Squared Mahalanobis distances of each row to each class, under the discriminant of the other rows.

    Without row i, its class mean is :math:`\mu - r_i / (n_k - 1)` and the scatter :math:`S - a_i r_i r_i^\top` with
    :math:`r_i = x_i - \mu`, :math:`a_i = n_k / (n_k - 1)`. The added :math:`\lambda I`,
    :math:`\lambda = \alpha \, \mathrm{tr} S / d`, is held fixed. With :math:`A = ((1 - \alpha) S + \lambda I)^{-1}`,
    Sherman-Morrison gives :math:`A_{-i} = A + g_i (A r_i)(A r_i)^\top`,
    :math:`g_i = b_i / (1 - b_i r_i^\top A r_i)`, :math:`b_i = (1 - \alpha) a_i`. The covariance is the inverse of A
    over the degrees of freedom, of which the row takes one.

    Takes ``features [n, d]`` among the rows of the discriminant, their labels ``[n]`` and places in ``SHRINKAGES``.
    Yields for each chunk of rows, without the only ones of a class, their places ``[m]``, those of their classes
    ``[m]``, and for each shrinkage the distances ``[K, m]``, which may be changed, and their rounding error ``[m]``.
    """
    counts, centre = discriminant.class_counts, discriminant.centre
    start = 0
    for chunk, labels in row_chunks(features, target, width=len(counts)):
        position = discriminant.class_position[labels]  # [m]
        kept = (counts[position] > 1).nonzero().squeeze(1)  # [m']
        if len(kept) < len(chunk):
            chunk, position = chunk[kept], position[kept]
        # Autocast would run the products of float32 (MPS) in half precision; it leaves float64 alone.
        with torch.autocast(device_type=features.device.type, enabled=False):
            rows = (chunk if centre is None else chunk - centre) @ discriminant.basis  # [m, d] @ [d, p]
            rows = rows if discriminant.rest is None else rows - discriminant.rest
            distances = list(_squared_distances(rows, position, discriminant, shrinkages))
        yield kept + start, position, distances
        start += len(labels)


def _squared_distances(
    rows: Tensor, position: Tensor, discriminant: LinearDiscriminant, shrinkages: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Distances ``[K, m]`` and their rounding error ``[m]`` for each shrinkage, of ``rows [m, p]`` of known classes."""
    freedom, means, counts = discriminant.degrees_of_freedom, discriminant.class_means, discriminant.class_counts
    leverage = counts[position]
    leverage = leverage / (leverage - 1)  # [m], a
    residuals = rows - means[position]  # [m, p], r
    precisions = discriminant.precisions[list(shrinkages)]  # [s, p]
    lengths, across, own = (precisions @ product.T for product in (rows.square(), rows * residuals, residuals.square()))
    unit = (freedom - 1).clamp(min=1) / freedom
    for i, shrinkage in enumerate(shrinkages):
        length, crossed, squared = lengths[i], across[i], own[i]  # [m], x'Ax, x'Ar and r'Ar
        share = (1 - SHRINKAGES[shrinkage]) / freedom
        weighted = means * precisions[i]  # [K, p]
        if discriminant.corrections is None or discriminant.products is None:
            with_rows, with_residuals = weighted @ rows.T, weighted @ residuals.T  # [K, m] each, mu'Ax and mu'Ar
        else:
            of_own, corrected_of_own = discriminant.products[:, shrinkage].index_select(2, position)  # [K, m] each
            plain = weighted @ rows.T  # [K, m], mu'Px
            with_rows = discriminant.corrections[shrinkage] @ plain
            with_residuals = with_rows - corrected_of_own
            length = length + share * (counts @ (plain * with_rows))
            crossed = crossed + share * (counts @ (plain * with_residuals))
            squared = squared + share * (counts @ (plain.sub_(of_own).mul_(with_residuals)))
        weight = share * leverage  # [m], b in units of the covariance
        # b r'Ar is below 1 by the shrunk part; the bound only meets rounding.
        remaining = (1 - weight * squared).clamp(min=1e-12)
        root = (unit * weight / remaining).sqrt()  # [m]
        distances = (unit * discriminant.class_norms[shrinkage]).unsqueeze(1) + unit * length  # [K, m]
        distances.addcmul_(with_rows, unit, value=-2)
        across_own = with_residuals.sub_(crossed).mul_(root)
        distances.addcmul_(across_own, across_own)
        distances.scatter_(0, position.unsqueeze(0), (unit * leverage.square() * squared / remaining).unsqueeze(0))
        yield distances, length.mul(64 * torch.finfo(rows.dtype).eps * unit)
