"""LEEP: log expected empirical prediction."""

import torch
from torch import Tensor

from lightning_leep.functional.inputs import check_flag, labelled_rows, probability_rows
from lightning_leep.functional.joint import (
    conditional_probability,
    eep_likelihood,
    joint_probability,
    leave_one_out_likelihood,
)


def leep(
    preds: Tensor,
    target: Tensor,
    num_target_classes: int,
    from_logits: bool = True,
    ignore_index: int | None = None,
    leave_one_out: bool = False,
) -> Tensor:
    r"""Log expected empirical prediction of a source classifier on labelled target data.

    .. math::
        \text{LEEP} = \frac{1}{n} \sum_{i=1}^n \log \sum_z P(y_i|z) \, \theta_i(z), \qquad
        P(y|z) = \frac{\sum_{i: y_i = y} \theta_i(z)}{\sum_i \theta_i(z)}

    where :math:`\theta_i` is the source's distribution over its Z classes for target image i. LEEP is at most 0 and at
    least :math:`\frac1n \sum_i \log P(y_i|z_i) \, \theta_i(z_i)` for any source classes :math:`z_i`. It equals minus
    the entropy of the labels if the source's output does not depend on the image, and NCE if every :math:`\theta_i` is
    one-hot. Higher is better. Natural logarithm (nats).

    Source: Nguyen, Hassner, Seeger, Archambeau, ICML 2020 (arXiv:2002.12462), section 3, equations 1 and 2.

    Args:
        preds: ``[N, Z]`` or ``[N, Z, d1, ...]`` source outputs.
        target: ``[N]`` or ``[N, d1, ...]`` integer labels in ``0 .. num_target_classes - 1``.
        num_target_classes: C; classes without an image are allowed.
        from_logits: Whether ``preds`` are logits (a softmax is applied) or probabilities.
        ignore_index: Label of the rows that are left out.
        leave_one_out: Whether each row is predicted from the other rows alone, with a Dirichlet prior of weight 1
            (:func:`~lightning_leep.functional.joint.leave_one_out_likelihood`). Plain LEEP is in-sample: a confident
            source scores far above the floor -H(Y) on labels that it knows nothing about. The leave-one-out form does
            not. It leaves out rows that are the only one of their class.

    Returns:
        LEEP in nats, 0-d, float64 where the device has it.

    Raises:
        TypeError: If ``preds`` is not floating point or ``target`` is not integer.
        ValueError: If shapes, labels or probabilities are invalid, or fewer than 2 rows (that can be scored) remain.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8]])
        >>> round(leep(preds, torch.tensor([0, 0, 1, 1]), num_target_classes=2, from_logits=False).item(), 4)
        -0.384
    """
    check_flag("from_logits", from_logits)
    check_flag("leave_one_out", leave_one_out)
    rows, labels = labelled_rows(preds, target, num_target_classes, ignore_index=ignore_index, two_for="LEEP")
    probs = probability_rows(rows, from_logits)
    joint = joint_probability(probs, labels, num_target_classes)  # [C, Z]
    if leave_one_out:
        class_counts = torch.bincount(labels, minlength=num_target_classes)  # [C]
        likelihood = leave_one_out_likelihood(probs, labels, joint, class_counts)
        if likelihood.shape[0] < 2:
            raise ValueError("Leave-one-out LEEP needs a class with at least 2 rows in `target`, got none.")
    else:
        likelihood = eep_likelihood(probs, labels, conditional_probability(joint))
    return likelihood.log().mean().clamp(max=0.0)  # a perfect source may end a rounding error above 0
