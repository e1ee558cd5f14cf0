"""LEEP: log expected empirical prediction."""

from torch import Tensor

from lightning_leep.functional.inputs import (
    check_ignore_index,
    check_labels,
    check_layout,
    check_num_classes,
    flatten_rows,
    probability_rows,
)
from lightning_leep.functional.joint import conditional_probability, eep_likelihood, joint_probability


def leep(
    preds: Tensor,
    target: Tensor,
    num_target_classes: int,
    from_logits: bool = True,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Log expected empirical prediction of a source classifier on labelled target data.

    .. math::
        \text{LEEP} = \frac{1}{n} \sum_{i=1}^n \log \sum_z P(y_i|z) \, \theta_i(z), \qquad
        P(y|z) = \frac{\sum_{i: y_i = y} \theta_i(z)}{\sum_i \theta_i(z)}

    with :math:`\theta_i` the source's distribution over its Z classes for target image i. It is at most 0, at least
    :math:`\text{NCE} + \frac1n \sum_i \log \theta_i(z_i)`, and equals minus the entropy of the labels when the source
    says nothing about them. Higher is better. Natural logarithm (nats).

    Source: Nguyen, Hassner, Seeger, Archambeau, ICML 2020 (arXiv:2002.12462), section 3, equations 1 and 2.

    Args:
        preds: ``[N, Z]`` or ``[N, Z, d1, ...]`` source outputs.
        target: ``[N]`` or ``[N, d1, ...]`` integer labels in ``0 .. num_target_classes - 1``.
        num_target_classes: C; classes without an image are allowed.
        from_logits: Whether ``preds`` are logits (a softmax is applied) or probabilities.
        ignore_index: Label of the rows that are left out.

    Returns:
        0-d tensor, float64 where the device has it.

    Raises:
        TypeError: If ``preds`` is not floating point or ``target`` is not integer.
        ValueError: If shapes, labels or probabilities are invalid, or fewer than 2 rows remain.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8]])
        >>> round(leep(preds, torch.tensor([0, 0, 1, 1]), num_target_classes=2, from_logits=False).item(), 4)
        -0.384
    """
    check_num_classes("num_target_classes", num_target_classes)
    check_ignore_index(ignore_index)
    check_layout(preds, target, None)
    rows, labels = flatten_rows(preds, target, ignore_index)  # [n, Z], [n]
    check_labels(labels, num_target_classes)
    if rows.shape[0] < 2:
        raise ValueError(f"LEEP needs at least 2 labelled rows in `preds`, got {rows.shape[0]}.")
    probs = probability_rows(rows, from_logits)
    conditional = conditional_probability(joint_probability(probs, labels, num_target_classes))
    # A perfect source may end a rounding error above 0.
    return eep_likelihood(probs, labels, conditional).log().mean().clamp(max=0.0)
