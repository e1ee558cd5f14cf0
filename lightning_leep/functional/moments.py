r"""Feature moments: fixed-size, additive, exact sufficient statistics of labelled features.

They are kept about a centre near the mean of the features: raw second moments of features with mean 1e6 and standard
deviation 1 would lose 12 of float64's 16 digits.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype, row_chunks


class FeatureMoments(NamedTuple):
    r"""Moments of rows :math:`x_i` with labels :math:`y_i` about a centre :math:`c`; :math:`v_i = x_i - c`.

    ``centre`` is any point near the mean; ``class_sums`` hold the rest. Moments about one centre add up by field.
    """

    centre: Tensor  #: ``[d]``, :math:`c`
    class_counts: Tensor  #: ``[C]`` int64, rows of each class
    class_sums: Tensor  #: ``[C, d]``, :math:`\sum_{i: y_i = k} v_i`
    scatter: Tensor  #: ``[d, d]``, :math:`\sum_i v_i v_i^\top`
    cubic: Tensor  #: ``[d]``, :math:`\sum_i \|v_i\|^2 v_i`
    quartic: Tensor  #: ``[]``, :math:`\sum_i \|v_i\|^4`

    @property
    def num_rows(self) -> Tensor:
        """n, 0-d int64."""
        return self.class_counts.sum()

    @property
    def is_finite(self) -> bool:
        """Whether all features were finite and the sum of their fourth powers did not overflow."""
        return bool(self.quartic.isfinite())

    @property
    def mean(self) -> Tensor:
        """``[d]``, mean of all rows; the centre when there are none."""
        return self.centre + self.class_sums.sum(dim=0) / self.num_rows.clamp(min=1)


def empty_moments(num_target_classes: int, num_features: int, device: torch.device | str = "cpu") -> FeatureMoments:
    """Moments of no rows: all zero, the neutral element of `merge_moments`."""
    device, d = torch.device(device), num_features
    dtype, shapes = accumulation_dtype(device), ((d,), (num_target_classes, d), (d, d), (d,), ())
    centre, sums, scatter, cubic, quartic = (torch.zeros(shape, dtype=dtype, device=device) for shape in shapes)
    counts = torch.zeros(num_target_classes, dtype=torch.long, device=device)
    return FeatureMoments(centre, counts, sums, scatter, cubic, quartic)


def feature_moments(
    features: Tensor, target: Tensor, num_target_classes: int, centre: Tensor | None = None
) -> FeatureMoments:
    """Moments of finite ``features [n, d]`` with labels ``target [n]`` about ``centre [d]``, their mean when None."""
    centre = _mean(features, target) if centre is None else centre
    moments = empty_moments(num_target_classes, features.shape[1], features.device)._replace(centre=centre)
    return _accumulate(moments, features, target, in_place=True)


def update_moments(moments: FeatureMoments, features: Tensor, target: Tensor) -> FeatureMoments:
    """Moments of earlier rows and of ``features [n, d]`` with labels ``target [n]``; the argument is not changed.

    The centre moves to the mean whenever the number of rows passes a power of two: near enough, since m rows at a
    distance D raise the variance itself to at least about D^2 m / n.
    """
    seen, new = int(moments.num_rows), features.shape[0]
    if not new:
        return moments
    if seen.bit_length() == (seen + new).bit_length():
        return _accumulate(moments, features, target)
    if not seen:
        return feature_moments(features, target, moments.class_counts.shape[0])
    weight = new / (seen + new)
    centre = moments.mean * (1 - weight) + _mean(features, target) * weight  # [d]
    return _accumulate(recentre_moments(moments, centre), features, target, in_place=True)


def _mean(features: Tensor, target: Tensor) -> Tensor:
    mean = torch.zeros(features.shape[1], dtype=accumulation_dtype(features.device), device=features.device)
    for chunk, _ in row_chunks(features, target):
        mean += chunk.sum(dim=0) / max(1, features.shape[0])  # [m, d] -> [d]
    return mean


def _accumulate(moments: FeatureMoments, features: Tensor, target: Tensor, in_place: bool = False) -> FeatureMoments:
    centre, counts, class_sums, scatter, cubic, quartic = moments
    # Autocast would run the products of float32 (MPS) in half precision; it leaves float64 alone.
    with torch.autocast(device_type=features.device.type, enabled=False):
        for i, (chunk, labels) in enumerate(row_chunks(features, target)):
            deviation = chunk - centre  # [m, d]
            norms = deviation.square().sum(dim=1)  # [m]
            if i == 0 and not in_place:  # the only copies; later chunks are added in place
                class_sums, cubic = class_sums.clone(), cubic.clone()
                scatter = torch.addmm(scatter, deviation.T, deviation)  # [d, m] @ [m, d]
            else:
                scatter.addmm_(deviation.T, deviation)
            class_sums.index_add_(0, labels, deviation)
            cubic.addmv_(deviation.T, norms)  # [d, m] @ [m]
            quartic = quartic + norms.square().sum()
    counts = counts + torch.bincount(target, minlength=counts.shape[0])  # [C]
    return FeatureMoments(centre, counts, class_sums, scatter, cubic, quartic)


def recentre_moments(moments: FeatureMoments, centre: Tensor) -> FeatureMoments:
    """Moments of the same rows about another ``centre [d]``, exact."""
    return _shift(moments, centre - moments.centre, centre)


def central_moments(moments: FeatureMoments) -> FeatureMoments:
    """Moments of the same rows about their exact mean, while ``centre`` is the rounded one: they cannot be merged."""
    return _shift(moments, moments.class_sums.sum(dim=0) / moments.num_rows.clamp(min=1), moments.mean)


def _shift(moments: FeatureMoments, shift: Tensor, centre: Tensor) -> FeatureMoments:
    r"""Moments of :math:`v - \delta` for ``shift`` :math:`\delta`, by expansion of the products.

    With :math:`s = \sum v`, :math:`M = \sum v v^\top`, :math:`t = \sum \|v\|^2 v` the last one, for example, is
    :math:`\sum \|v\|^4 + 4\delta^\top M \delta + n\|\delta\|^4 - 4 t^\top\delta + 2\|\delta\|^2 \mathrm{tr} M
    - 4\|\delta\|^2 s^\top\delta`.
    """
    with torch.autocast(device_type=centre.device.type, enabled=False):
        num_rows = moments.num_rows.to(centre.dtype)
        sums = moments.class_sums.sum(dim=0)  # [C, d] -> [d]
        trace = moments.scatter.diagonal().sum()
        scattered = moments.scatter @ shift  # [d, d] @ [d]
        norm, along = shift @ shift, sums @ shift
        scatter = moments.scatter.addr(shift, sums, alpha=-1)  # [d, d] - [d] x [d]
        scatter = scatter.addr_(sums - num_rows * shift, shift, alpha=-1)
        cubic = moments.cubic - 2 * scattered + norm * sums - (trace - 2 * along + num_rows * norm) * shift
        quartic = moments.quartic + 4 * (scattered @ shift) - 4 * (moments.cubic @ shift)
        quartic = quartic + norm * (num_rows * norm + 2 * trace - 4 * along)
        class_sums = moments.class_sums - moments.class_counts.unsqueeze(1) * shift  # [C, d]
    return FeatureMoments(centre, moments.class_counts, class_sums, scatter, cubic, quartic)


def merge_moments(a: FeatureMoments, b: FeatureMoments) -> FeatureMoments:
    """Moments of the rows of both about their common mean, from any two centres (Chan, Golub, LeVeque 1979)."""
    weight = b.num_rows.to(b.centre.dtype) / (a.num_rows + b.num_rows).clamp(min=1)
    centre = a.mean * (1 - weight) + b.mean * weight  # [d]; an empty side has weight 0
    a, b = recentre_moments(a, centre), recentre_moments(b, centre)
    return FeatureMoments(centre, *(x + y for x, y in zip(a[1:], b[1:], strict=True)))


def is_constant(variances: Tensor, mean: Tensor, num_rows: Tensor) -> Tensor:
    """``[d]`` bool: features whose ``variances``, sums of squares about the ``mean [d]``, are its rounding error."""
    return variances <= num_rows * (512 * torch.finfo(mean.dtype).eps * mean.abs()).square()


def ledoit_wolf_shrinkage(scatter: Tensor, quartic: Tensor, num_rows: Tensor, num_features: int) -> Tensor:
    r"""Ledoit and Wolf's optimal shrinkage :math:`\alpha \in [0, 1]` of the covariance towards a multiple of I, 0-d.

    The shrunk covariance is :math:`(1 - \alpha) \Sigma + \alpha \, \frac{\mathrm{tr} \Sigma}{d} I` with
    :math:`\Sigma = \frac1n \sum_i v_i v_i^\top`, :math:`v_i = x_i - \bar x`, and

    .. math::
        \alpha = \min\Big(1, \frac{\frac1n \big(\frac1n \sum_i \|v_i\|^4 - \|\Sigma\|_F^2\big)}
                                  {\|\Sigma - \frac{\mathrm{tr} \Sigma}{d} I\|_F^2}\Big)

    It is 0 if the covariance is a multiple of I. ``scatter`` is :math:`n \Sigma`, or a smaller matrix with the same
    eigenvalues above 0; ``quartic`` is :math:`\sum_i \|v_i\|^4`.

    Source: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
    Multivariate Analysis 88 (2004), section 3.
    """
    num_rows = num_rows.clamp(min=1).to(scatter.dtype)
    covariance = scatter / num_rows  # [p, p]
    squares = covariance.square().sum()
    mean = covariance.diagonal().sum() / num_features
    # Entry by entry instead of ||covariance||^2 - d mean^2, which cancels when the covariance is nearly isotropic.
    covariance.diagonal().sub_(mean)
    distance = covariance.square().sum() + (num_features - len(scatter)) * mean.square()
    spread = ((quartic / num_rows - squares) / num_rows).clamp(min=0)
    return torch.where(distance > 0, spread / distance, 0.0).clamp(max=1.0)
