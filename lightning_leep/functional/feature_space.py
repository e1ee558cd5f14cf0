"""Labelled features in the dimensions that they span: what every score of features is computed from.

So no decomposition is larger than the smaller of n and d, and one decomposition serves several scores.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_leep.functional.chunks import accumulation_dtype
from lightning_leep.functional.moments import (
    FeatureMoments,
    central_moments,
    feature_moments,
    is_constant,
    ledoit_wolf_shrinkage,
)

#: Random directions beyond the rank of a scatter, with which its range is found up to rounding.
OVERSAMPLING = 8


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    r"""Rows about their mean in p dimensions that span them, :math:`v_i = B^\top (x_i - \bar x)`.

    Features that are constant up to rounding are set to 0.
    """

    num_features: int  #: d
    class_counts: Tensor  #: ``[C]`` int64
    centre: Tensor  #: ``[d]``, mean of all rows, rounded
    scatter: Tensor  #: ``[p, p]``, :math:`\sum_i v_i v_i^\top`
    class_sums: Tensor  #: ``[C, p]``, :math:`\sum_{i: y_i = k} v_i`
    mean: Tensor  #: ``[p]``, :math:`B^\top \bar x`
    mean_outside: Tensor  #: ``[]``, squared length of the part of the mean outside the range of B
    variances: Tensor  #: ``[d]``, diagonal of the features' own scatter, 0 for constant ones
    quartic: Tensor  #: ``[]``, :math:`\sum_i \|v_i\|^4`
    rest: Tensor | None = None  #: ``[d]``, exact mean minus ``centre``, if made from moments
    basis: Tensor | None = None  #: ``[d, p]``, B; None if it is I (constant features aside) or not needed
    rows: Tensor | None = None  #: ``[n, p]``, v, if made from rows
    features: Tensor | None = None  #: ``[n, d]``, features of these rows about their mean
    labels: Tensor | None = None  #: ``[n]``, their labels

    @property
    def num_rows(self) -> Tensor:
        """n, 0-d int64."""
        return self.class_counts.sum()

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues ``[p]`` of the scatter, ascending, 0 if they are rounding error, and eigenvectors ``[p, p]``."""
        values, vectors = eigendecompose(self.scatter)
        return torch.where(values > rounding_error(values[-1], self.num_features), values, 0.0), vectors

    @cached_property
    def aligned(self) -> tuple[Tensor, Tensor]:
        """``class_sums`` and ``mean`` along the eigenvectors, ``[C, p]`` and ``[p]``."""
        vectors = self.spectrum[1]
        with torch.autocast(device_type=vectors.device.type, enabled=False):
            return self.class_sums @ vectors, self.mean @ vectors

    @property
    def class_scales(self) -> Tensor:
        r"""``[C, 1]``, :math:`\sqrt{n_k}`, and 1 for a class without rows."""
        return self.class_counts.clamp(min=1).to(self.class_sums.dtype).sqrt().unsqueeze(1)

    @property
    def class_roots(self) -> Tensor:
        r"""``[C, p]``, rows :math:`\sqrt{n_k} (\mu_k - \bar x)`: a root R of the between scatter :math:`R^\top R`."""
        return self.class_sums / self.class_scales

    @cached_property
    def shrinkage(self) -> Tensor:
        """Ledoit and Wolf's shrinkage of the features' covariance, 0-d."""
        return ledoit_wolf_shrinkage(self.scatter, self.quartic, self.num_rows, self.num_features)


def solvable(matrix: Tensor) -> Tensor:
    """The matrix where it can be decomposed: on the CPU in place of MPS, which lacks the decompositions."""
    return matrix.cpu() if matrix.device.type == "mps" else matrix


def eigendecompose(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[p]``, ascending and at least 0, and eigenvectors ``[p, p]`` of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(solvable(matrix))
    return values.clamp(min=0.0).to(matrix.device), vectors.to(matrix.device)


def rounding_error(largest: Tensor, size: int) -> Tensor:
    """Eigenvalues up to this size are rounding error, given the largest one and the size of the matrix."""
    return max(size, 32) * torch.finfo(largest.dtype).eps * largest


def space_of(features: Tensor, target: Tensor, num_target_classes: int) -> FeatureSpace:
    """Space of ``features [n, d]`` with labels ``target [n]`` in ``0 .. C-1``, from the rows or from their moments."""
    if features.shape[0] <= features.shape[1]:
        return space_of_rows(features, target, num_target_classes)
    return space_of_moments(feature_moments(features, target, num_target_classes))


def space_of_moments(moments: FeatureMoments) -> FeatureSpace:
    """Space of the rows with these moments: all d dimensions, or the range of the scatter if that is much smaller."""
    central = central_moments(moments)
    exact = moments.class_sums.sum(dim=0) / moments.num_rows.clamp(min=1)  # [d], mean about the centre of the moments
    varies = ~is_constant(central.scatter.diagonal(), central.centre, central.num_rows)  # [d]
    scatter, class_sums = central.scatter, central.class_sums * varies
    if not bool(varies.all()):
        scatter = scatter * varies * varies.unsqueeze(1)
    size, num_features = int(moments.num_rows) + OVERSAMPLING, len(scatter)
    whole = FeatureSpace(
        num_features=num_features,
        class_counts=central.class_counts,
        centre=central.centre,
        scatter=scatter,
        class_sums=class_sums,
        mean=central.centre,
        mean_outside=central.quartic.new_zeros(()),
        variances=scatter.diagonal(),
        quartic=central.quartic,
        rest=exact - (central.centre - moments.centre),
    )
    return whole if 2 * size > num_features else _range_of(whole, size)


def _range_of(space: FeatureSpace, size: int) -> FeatureSpace:
    """The same rows in ``size`` dimensions, at least as many as they span (Halko, Martinsson, Tropp 2011)."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(space.num_features, size, generator=generator, dtype=space.scatter.dtype)
    with torch.autocast(device_type=space.scatter.device.type, enabled=False):
        found = space.scatter @ directions.to(space.scatter.device)  # [d, d] @ [d, p]
        basis = torch.linalg.qr(solvable(found)).Q.to(found.device)  # [d, p]
        mean = space.mean @ basis
        return replace(
            space,
            scatter=basis.T @ (space.scatter @ basis),  # [p, d] @ [d, d] @ [d, p]
            class_sums=space.class_sums @ basis,
            mean=mean,
            mean_outside=(space.mean - basis @ mean).square().sum(),
            basis=basis,
        )


def space_of_rows(features: Tensor, target: Tensor, num_target_classes: int) -> FeatureSpace:
    """Space of ``features [n, d]`` with labels ``target [n]``, no more rows than features; it holds two copies of them.

    Rows and mean are factored together, so that the mean keeps its digits along directions that hardly vary.
    """
    size, dtype = len(features), accumulation_dtype(features.device)
    stacked = pad(features.detach(), (0, 0, 0, 1)).to(dtype)  # [n + 1, d], with a place for the mean
    rows = stacked[:-1]
    centre = rows.mean(dim=0)
    rest = rows.sub_(centre).mean(dim=0)  # not 0 if the mean is large, since its last digits were rounded
    centre = centre + rest
    variances = rows.sub_(rest).square().sum(dim=0)
    varies = ~is_constant(variances, centre, torch.tensor(size))
    rows.mul_(varies)
    stacked[-1] = centre
    factors = torch.linalg.qr(solvable(stacked.T), mode="r").R.to(rows.device)
    coordinates, mean = factors[:size, :size].T.contiguous(), factors[:, size]  # [n, n], [n or n + 1]
    with torch.autocast(device_type=rows.device.type, enabled=False):
        scatter = coordinates.T @ coordinates  # [n, n] @ [n, n]
    class_sums = scatter.new_zeros(num_target_classes, size).index_add_(0, target, coordinates)
    return FeatureSpace(
        num_features=rows.shape[1],
        class_counts=torch.bincount(target, minlength=num_target_classes),
        centre=centre,
        scatter=scatter,
        class_sums=class_sums,
        mean=mean[:size],
        mean_outside=mean[size:].square().sum(),
        variances=variances * varies,
        quartic=coordinates.square().sum(dim=1).square().sum(),
        rows=coordinates,
        features=rows,
        labels=target,
    )
