"""N-LEEP: LEEP with the components of a Gaussian mixture on the features in place of the source's classes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_leep.functional.chunks import row_chunks
from lightning_leep.functional.feature_space import space_of_moments
from lightning_leep.functional.inputs import check_num_classes, feature_rows
from lightning_leep.functional.leep import leep
from lightning_leep.functional.moments import FeatureMoments, feature_moments

#: Share of the features' variance that the principal components keep (Li et al., CVPR 2021).
EXPLAINED_VARIANCE = 0.8

#: Components of the mixture for each target class (Li et al., CVPR 2021).
COMPONENTS_PER_CLASS = 5

#: Rows that the mixture is fitted to unless told otherwise; the paper fits to all.
MAX_FIT_ROWS = 10_000


def nleep(
    features: Tensor,
    target: Tensor,
    num_target_classes: int,
    num_components: int | None = None,
    max_fit_rows: int | None = MAX_FIT_ROWS,
    seed: int = 0,
    ignore_index: int | None = None,
) -> Tensor:
    r"""N-LEEP of features: LEEP of a source whose classes are the components of a Gaussian mixture.

    The features are projected on the principal components that hold 80% of their variance, and a mixture of
    ``num_components`` Gaussians with full covariances is fitted to them. Its posteriors :math:`P(v|x_i)` replace the
    source's output :math:`\theta_i(z)` in `leep`. It needs no classifier head. At most 0, and at least minus the
    entropy of the labels up to the in-sample optimism of LEEP. Higher is better. Natural logarithm (nats).

    The projected features are divided by one common factor, so that the mixture's regularisation (scikit-learn's
    ``reg_covar``) means the same for features of any scale. The mixture starts from a seeded k-means on the rows in an
    order that is made from their values, so the score does not depend on the order of the rows.

    Source: Li et al., "Ranking Neural Checkpoints", CVPR 2021 (arXiv:2011.11200).

    ``features``, ``target`` and result (0-d, in nats) are as for :func:`~lightning_leep.functional.h_score.h_score`.
    The mixture has ``num_components``, 5 C when None, and is fitted to a random subset of ``max_fit_rows``, to all rows
    when None, as in the paper. All rows are scored either way. ``seed`` is that of the subset and of the mixture.

    Errors are as there, also for fewer rows than components, and ``ModuleNotFoundError`` without scikit-learn.

    Example:
        >>> import torch
        >>> target = torch.arange(2).repeat(20)
        >>> features = torch.linspace(-1, 1, 80).reshape(40, 2) + 20 * target.unsqueeze(1)
        >>> abs(round(nleep(features, target, num_target_classes=2, num_components=2).item(), 4))
        0.0
    """
    num_components = mixture_size(num_target_classes, num_components, max_fit_rows)
    rows, labels = feature_rows(features, target, num_target_classes, ignore_index=ignore_index)  # [n, d], [n]
    if rows.shape[0] < max(2, num_components):
        raise ValueError(
            f"N-LEEP needs at least as many labelled rows in `features` as `num_components`={num_components} (5 for "
            f"each target class unless given) and at least 2, got {rows.shape[0]}. Pass a smaller `num_components`."
        )
    moments = feature_moments(rows, labels, num_target_classes)
    projected = project(rows, moments.mean, principal_axes(moments))  # [n, k]
    fitted = projected[row_keys(rows, seed).argsort()[:max_fit_rows]]  # [m, k]
    posteriors = mixture_posteriors(fit_mixture(fitted, num_components, seed), projected)  # [n, V]
    return leep(posteriors, labels, num_target_classes, from_logits=False)


def mixture_size(num_target_classes: int, num_components: int | None, max_fit_rows: int | None) -> int:
    """Number of components of the mixture, 5 C for None; ``ValueError`` for impossible settings."""
    if num_components is None:
        num_components = COMPONENTS_PER_CLASS * num_target_classes
    check_num_classes("num_components", num_components)
    if max_fit_rows is not None:
        check_num_classes("max_fit_rows", max_fit_rows, minimum=num_components)
    return num_components


def principal_axes(moments: FeatureMoments) -> Tensor:
    """``[d, k]`` principal components that hold 80% of the variance, divided by one scale; k = 0 if nothing varies.

    The entry of largest magnitude of each is positive, so that the same rows give the same projections everywhere.
    """
    space = space_of_moments(moments)
    variances, vectors = space.spectrum  # [p], [p, p]
    vectors = vectors if space.basis is None else space.basis @ vectors  # [d, p]
    variances, vectors = variances.flip(0) / moments.num_rows, vectors.flip(1)  # largest first
    if not bool(variances[0] > 0):
        return vectors[:, :0]
    explained = variances.cumsum(0) / variances.sum()
    size = int((explained < EXPLAINED_VARIANCE).sum()) + 1
    axes = vectors[:, :size]  # [d, k]
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))  # [1, k]
    return axes * largest.sign() / variances[:size].mean().sqrt()


def project(features: Tensor, mean: Tensor, axes: Tensor) -> Tensor:
    """``[n, k]`` coordinates of ``features [n, d]`` about ``mean [d]`` along ``axes [d, k]``, on the CPU."""
    with torch.autocast(device_type=features.device.type, enabled=False):
        return torch.cat([(chunk - mean) @ axes for chunk, _ in row_chunks(features, features[:, 0])]).cpu()


def row_keys(features: Tensor, seed: int) -> Tensor:
    """``[n]`` int64 on the CPU, a seeded hash of each row's values: sorting by it shuffles rows in any order."""
    generator = torch.Generator().manual_seed(seed)
    # Multiply-shift hashing (Dietzfelbinger et al. 1997): odd factors, products and sum modulo 2^64, top bits first.
    factors = torch.randint(-(2**62), 2**62, (features.shape[1],), generator=generator) * 2 + 1
    chunks = row_chunks(features.cpu(), features[:, 0].cpu())
    # + 0.0 makes -0.0 the same as 0.0.
    return torch.cat([((chunk + 0.0).view(torch.long) * factors).sum(dim=1) for chunk, _ in chunks])


def require_scikit_learn() -> Any:
    """scikit-learn's class of Gaussian mixtures; ``ModuleNotFoundError`` if it is not installed."""
    try:
        from sklearn.mixture import GaussianMixture
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "N-LEEP needs scikit-learn for its Gaussian mixture: `pip install lightning-leep[nleep]`."
        ) from error
    return GaussianMixture


def fit_mixture(projected: Tensor, num_components: int, seed: int) -> Any:
    """scikit-learn mixture of ``num_components`` Gaussians fitted to ``projected [m, k]``; None for k = 0."""
    gaussian_mixture = require_scikit_learn()
    if projected.shape[1] == 0:  # the features do not vary, so one component holds every row
        return None
    return gaussian_mixture(num_components, random_state=seed).fit(projected.double().numpy())


def mixture_posteriors(mixture: Any, projected: Tensor) -> Tensor:
    """``[n, V]`` float64, probability of each component for each row of ``projected [n, k]``."""
    if mixture is None or projected.shape[0] == 0:
        return torch.ones(projected.shape[0], 1 if mixture is None else mixture.n_components, dtype=torch.float64)
    posteriors: np.ndarray = mixture.predict_proba(projected.double().numpy())
    return torch.from_numpy(posteriors)
