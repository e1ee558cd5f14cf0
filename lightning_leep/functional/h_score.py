"""H-score: the variance between classes that features have, measured in units of their total variance."""

import torch
from torch import Tensor

from lightning_leep.functional.features import check_features, flatten_features
from lightning_leep.functional.inputs import check_flag
from lightning_leep.functional.moments import (
    FeatureMoments,
    between_root,
    central_moments,
    constant_features,
    eigendecompose,
    feature_moments,
    ledoit_wolf_shrinkage,
)

#: Variance, as a share of the largest, up to which a direction of features that are scaled to unit variance counts as
#: absent from the plain form: one that features in float32 depend on up to rounding has less.
ABSENT_VARIANCE = 1e-12


def h_score(
    features: Tensor,
    target: Tensor,
    num_target_classes: int,
    shrinkage: bool = True,
    ignore_index: int | None = None,
) -> Tensor:
    r"""H-score of features, plain or with the covariance shrunk.

    .. math::
        H = \mathrm{tr}\big(\Sigma^+ \Sigma_B\big), \qquad
        H_\alpha = \mathrm{tr}\big(\Sigma_\alpha^{-1} (1 - \alpha) \Sigma_B\big), \quad
        \Sigma_\alpha = (1 - \alpha) \Sigma + \alpha \tfrac{\mathrm{tr} \Sigma}{d} I

    with :math:`\Sigma = \mathrm{cov}(f)`, :math:`\Sigma_B = \mathrm{cov}(\mathbb{E}[f|y])` over the n rows (both
    divided by n) and :math:`\alpha` the Ledoit-Wolf shrinkage. Both are at least 0 and at most the smaller of the
    rank of the features and the number of classes present less one. Higher is better. The plain form reaches that
    bound for any features once n <= d + 1, whatever the labels; the shrunk form does not.

    The plain form weighs every direction alike, however little features vary along it. Directions of a standard
    deviation below 1e-6 of the largest (of features scaled to unit variance) count as absent, as float32 features say
    nothing there but their rounding; one of 1e-5 is right to about 1e-5 of its share.

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
        0-d tensor, float64 where the device has it.

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
    check_features(features, target, num_target_classes, ignore_index=ignore_index)
    rows, labels = flatten_features(features, target, num_target_classes, ignore_index)  # [n, d], [n]
    if rows.shape[0] < 2:
        raise ValueError(f"H-score needs at least 2 labelled rows in `features`, got {rows.shape[0]}.")
    return h_score_from_moments(feature_moments(rows, labels, num_target_classes), shrinkage)


def h_score_from_moments(moments: FeatureMoments, shrinkage: bool = True) -> Tensor:
    """H-score from feature moments, see `h_score`; 0 for features that do not vary, NaN for moments not finite.

    Args:
        moments: Moments of all rows.
        shrinkage: Whether the covariance is shrunk.

    Returns:
        0-d tensor, float64 where the device has it.
    """
    if not moments.is_finite:
        return torch.full_like(moments.quartic, torch.nan)
    moments = central_moments(moments)
    scatter, roots = moments.scatter, between_root(moments)  # [d, d], [C, d]
    varies = ~constant_features(moments)  # [d]
    if not shrinkage:
        return _trace_of_ratio(scatter, roots, varies, ABSENT_VARIANCE)
    alpha = ledoit_wolf_shrinkage(moments)
    target = scatter.diagonal().mean() * torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    return (1 - alpha) * _trace_of_ratio(torch.lerp(scatter, target, alpha), roots, varies)


def _trace_of_ratio(scatter: Tensor, roots: Tensor, varies: Tensor, smallest: float = 0.0) -> Tensor:
    r"""Trace of :math:`S^+ R^\top R` for ``scatter`` S ``[d, d]`` whose range holds the rows of ``roots`` R ``[C, d]``.

    Any generalised inverse gives the same trace then, so every feature is first divided by its standard deviation:
    what is left out as rounding error depends on how features are correlated, not on the units of each.
    """
    scale = torch.where(varies, scatter.diagonal(), 1.0).sqrt()  # [d]
    values, vectors = eigendecompose(scatter / scale / scale.unsqueeze(1), varies, smallest)  # [d], [d, d]
    with torch.autocast(device_type=scatter.device.type, enabled=False):
        along = (roots / scale) @ vectors  # [C, d] @ [d, d]: coordinates along the eigenvectors
    return torch.where(values > 0, along.square().sum(dim=0) / values, 0.0).sum()
