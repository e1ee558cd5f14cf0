"""H-score: the variance between classes that features have, measured in units of their total variance."""

import torch
from torch import Tensor

from lightning_leep.functional.feature_space import FeatureSpace, eigendecompose, rounding_error, solvable, space_of
from lightning_leep.functional.inputs import check_flag, feature_rows

#: In the plain form a direction of features scaled to unit variance counts as absent up to this share of the largest
#: variance. Directions that are only the rounding of float32 features have less.
ABSENT_VARIANCE = 1e-12

#: Largest rounding error of a solution by a Cholesky factor; beyond it an eigendecomposition is used.
SOLVED = 2e-7

#: Share of the largest eigenvalue that shrinkage must add so that the smallest eigenvalues are exact to 1e-9.
LEAST_SHRUNK = 1e-7


def h_score(
    features: Tensor, target: Tensor, num_target_classes: int, shrinkage: bool = True, ignore_index: int | None = None
) -> Tensor:
    r"""H-score of features, plain or with the covariance shrunk.

    .. math::
        H = \mathrm{tr}\big(\Sigma^+ \Sigma_B\big), \qquad
        H_\alpha = \mathrm{tr}\big(\Sigma_\alpha^{-1} (1 - \alpha) \Sigma_B\big), \quad
        \Sigma_\alpha = (1 - \alpha) \Sigma + \alpha \tfrac{\mathrm{tr} \Sigma}{d} I

    where :math:`\Sigma = \mathrm{cov}(f)` and :math:`\Sigma_B = \mathrm{cov}(\mathbb{E}[f|y])` over the n rows (both
    divided by n), and :math:`\alpha` is the Ledoit-Wolf shrinkage. Both forms are at least 0 and at most the smaller of
    the rank of the features and the number of classes present minus one. Higher is better. The plain form reaches this
    bound whatever the labels if n <= d + 1; the shrunk form does not.

    The plain form gives every direction the same weight, however little the features vary along it. Directions with a
    standard deviation below 1e-6 of the largest (of features scaled to unit variance) count as absent, since there
    float32 features hold only rounding; a direction of 1e-5 is right to about 1e-5 of its share.

    Source: Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019
    (arXiv:2212.10082); the shrunk form: Ibrahim, Ponomareva, Mazumder, "Newer is not always better: Rethinking
    transferability metrics, their peculiarities, stability and performance", ECML PKDD 2022 (arXiv:2110.06893).

    Args:
        features: ``[N, d]`` or ``[N, d, d1, ...]`` floating point.
        target: ``[N]`` or ``[N, d1, ...]`` integer labels in ``0 .. num_target_classes - 1``.
        num_target_classes: C; classes without an image are allowed.
        shrinkage: Whether the covariance is shrunk.
        ignore_index: Label of the rows that are left out.

    Returns:
        The H-score, without a unit, 0-d, float64 where the device has it.

    Raises:
        TypeError: If ``features`` is not floating point or ``target`` is not integer.
        ValueError: If shapes, labels or values are invalid, or fewer than 2 rows remain.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0, 1.0], [0.2, 0.0], [1.0, 0.5], [1.2, 0.6]])
        >>> target = torch.tensor([0, 0, 1, 1])
        >>> round(h_score(features, target, num_target_classes=2, shrinkage=False).item(), 4)
        0.977
    """
    check_flag("shrinkage", shrinkage)
    rows, labels = feature_rows(features, target, num_target_classes, ignore_index=ignore_index, two_for="H-score")
    return h_score_of_space(space_of(rows, labels, num_target_classes), shrinkage)


def h_score_of_space(space: FeatureSpace, shrinkage: bool = True) -> Tensor:
    """H-score from the space of all rows, see `h_score`."""
    roots = space.class_roots  # [C, p]
    whole = space.basis is None and space.rows is None  # in the features' own dimensions
    if not shrinkage:
        return _of_scaled_features(space.scatter, roots, ABSENT_VARIANCE) if whole else _of_few_rows(space)
    alpha, (values, _) = space.shrinkage, space.spectrum
    added = alpha * space.scatter.diagonal().sum() / space.num_features  # to (1 - alpha) times the scatter
    if whole and bool(added < LEAST_SHRUNK * values[-1]):
        shrunk = (1 - alpha) * space.scatter
        shrunk.diagonal().add_(added)
        return (1 - alpha) * _of_scaled_features(shrunk, roots)
    spread = (1 - alpha) * values + added  # [p]
    squares = (space.aligned[0] / space.class_scales).square().sum(dim=0)  # [p]
    return (1 - alpha) * torch.where(spread > rounding_error(spread[-1], len(spread)), squares / spread, 0.0).sum()


def _of_scaled_features(scatter: Tensor, roots: Tensor, smallest: float = 0.0) -> Tensor:
    r"""Trace of :math:`S^+ R^\top R` for ``scatter`` S ``[d, d]`` whose range holds the rows of ``roots`` R ``[C, d]``.

    Any generalised inverse then gives the same trace. So every feature is first divided by its standard deviation: what
    counts as rounding error must not depend on units. Eigenvalues up to ``smallest`` of the largest one count as 0.
    """
    device, scatter, roots = scatter.device, solvable(scatter), solvable(roots)
    varies = scatter.diagonal() > 0  # [d]
    scale = torch.where(varies, scatter.diagonal(), 1.0).sqrt()
    correlations, roots = scatter / scale / scale.unsqueeze(1), roots / scale  # [d, d], [C, d]
    correlations.diagonal().copy_(torch.ones_like(scale))
    triangle, fault = torch.linalg.cholesky_ex(correlations)
    with torch.autocast(device_type=scatter.device.type, enabled=False):
        if int(fault) == 0:
            # Random signs z estimate the trace of the inverse, E |L^-1 z|^2, which bounds the smallest eigenvalue.
            signs = torch.randint(2, (8, len(scale)), generator=torch.Generator().manual_seed(0)).to(scale) * 2 - 1
            solved = torch.linalg.solve_triangular(triangle, torch.cat([roots, signs]).T, upper=False)  # [d, C + 8]
            squares = solved.square().sum(dim=0)
            if bool(squares[-8:].mean() * len(scale) < SOLVED / torch.finfo(scale.dtype).eps):
                return squares[:-8].sum().to(device)
        correlations.diagonal().copy_(varies)  # constant features do not count
        values, vectors = eigendecompose(correlations)  # [d], [d, d]
        squares = (roots @ vectors).square().sum(dim=0)  # [C, d] @ [d, d]
    least = max(float(rounding_error(values[-1], len(values))), smallest * float(values[-1]))
    return torch.where(values > least, squares / values, 0.0).sum().to(device)


def _of_few_rows(space: FeatureSpace) -> Tensor:
    """The plain form if the features have more dimensions than the rows span.

    It is the squared length of the projection of the centred, normalised labels on the columns of the scaled features.
    If the rows span n - 1 dimensions, the projection is the labels themselves.
    """
    values, vectors = space.spectrum
    if not bool(values[-1] > 0):
        return torch.zeros_like(values[-1])
    present, varies = (space.class_counts > 0).sum(), space.variances > 0  # [], [d]
    # The correlations' eigenvalues are at least those of the scatter over the largest variance, and at most d.
    safe = 1e3 * ABSENT_VARIANCE * space.variances.max() * varies.sum()
    if int((values > safe).sum()) >= int(space.num_rows) - 1:
        return (present - 1).to(values.dtype)
    if space.features is not None and space.labels is not None:
        rows = space.features  # [n, d]
        labels = torch.nn.functional.one_hot(space.labels, len(space.class_counts)).T.to(rows)  # [C, n]
    else:
        assert space.basis is not None
        kept = values > 0
        rows = ((space.basis @ vectors)[:, kept] * values[kept].sqrt()).T  # [r, d], products of which are the scatter
        labels = space.aligned[0][:, kept] / values[kept].sqrt()  # [C, r]
    rows = rows / torch.where(varies, space.variances, 1.0).sqrt()
    with torch.autocast(device_type=rows.device.type, enabled=False):
        values, vectors = eigendecompose(rows @ rows.T)  # [n], [n, n]
        least = max(float(rounding_error(values[-1], space.num_features)), ABSENT_VARIANCE * float(values[-1]))
        squares = (labels @ vectors[:, values > least]).square().sum(dim=1)  # [C]
    return (squares / space.class_counts.clamp(min=1)).sum()
