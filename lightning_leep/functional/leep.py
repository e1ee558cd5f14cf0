"""LEEP: log expected empirical prediction, and the joint and the empirical predictor (EEP) that it is made from.

Nguyen et al., ICML 2020 (arXiv:2002.12462), section 3.
"""

import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype, row_chunks
from lightning_leep.functional.inputs import check_flag, labelled_rows, probability_rows


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
            (:func:`~lightning_leep.functional.leep.leave_one_out_likelihood`). Plain LEEP is in-sample: a confident
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


def joint_probability(probs: Tensor, target: Tensor, num_target_classes: int) -> Tensor:
    r"""Sum ``[C, Z]`` of the source distributions of each class, :math:`J(y, z) = \sum_{i: y_i = y} \theta_i(z)`.

    It is a sum, so that batches and processes add up.
    """
    dtype = accumulation_dtype(probs.device)
    joint = torch.zeros((num_target_classes, probs.shape[1]), dtype=dtype, device=probs.device)
    for chunk, labels in row_chunks(probs, target):
        joint.index_add_(0, labels, chunk)
    return joint


def conditional_probability(joint: Tensor) -> Tensor:
    r""":math:`P(y|z) = J(y, z) / \sum_y J(y, z)`, shape ``[C, Z]``; 0 for a source class without any mass."""
    mass = joint.sum(dim=0)  # [Z]
    return torch.where(mass > 0, joint / mass, 0.0)


def eep_likelihood(probs: Tensor, target: Tensor, conditional: Tensor) -> Tensor:
    r"""Probability ``[n]`` that the EEP gives to each row's label, :math:`q_i(y_i) = \sum_z P(y_i|z) \theta_i(z)`."""
    likelihood = []
    for chunk, labels in row_chunks(probs, target):
        own = conditional.index_select(0, labels)  # [m, Z]
        likelihood.append(own.mul_(chunk).sum(dim=1))  # [m]
    return torch.cat(likelihood)


def leave_one_out_likelihood(
    probs: Tensor, target: Tensor, joint: Tensor, class_counts: Tensor, prior_weight: float = 1.0
) -> Tensor:
    r"""Probability ``[n']`` that the EEP made from all other rows gives to each row's own label.

    .. math::
        q_i(y_i) = \sum_z \theta_i(z) \frac{J_{-i}(y_i, z) + a \, \pi_{-i}(y_i)}{J_{-i}(z) + a}

    where :math:`J_{-i}` is the joint without row i and :math:`\pi_{-i}` are the class frequencies of the other rows,
    which serve as a Dirichlet prior of weight a (``prior_weight``, in rows for each source class). Summed over y it is
    1. ``joint [C, Z]`` and ``class_counts [C]`` are of all rows, row i included. Rows that are the only one of their
    class are left out, since the other rows say nothing about that class.
    """
    counts = class_counts.to(joint.dtype)
    mass = joint.sum(dim=0)  # [Z]
    likelihood = []
    for chunk, labels in row_chunks(probs, target):
        others = counts[labels] - 1  # [m]
        if not bool((others > 0).all()):
            chunk, labels, others = chunk[others > 0], labels[others > 0], others[others > 0]  # [m', Z], [m'], [m']
        prior = prior_weight * others / (counts.sum() - 1)  # [m']
        # The differences are sums of probabilities, so only rounding makes them negative.
        own = joint.index_select(0, labels).sub_(chunk).clamp_(min=0.0)  # [m', Z]
        rest = (mass - chunk).clamp_(min=0.0)  # [m', Z]
        own.add_(prior.unsqueeze(1)).div_(rest.add_(prior_weight))
        likelihood.append(own.mul_(chunk).sum(dim=1))  # [m']
    return torch.cat(likelihood)


def eep_correct(probs: Tensor, target: Tensor, conditional: Tensor) -> Tensor:
    r"""Whether the EEP's most probable class :math:`\arg\max_y q_i(y)` is the row's label, ``[n]``: 0, 1 or a share.

    A row whose label is among k equally probable ones counts 1/k, so that an uninformative source scores the chance
    level whatever the order of the classes. Probabilities within a relative 1e-12 of each other (1e-5 where there is no
    float64) count as equal, since the sums are rounded.
    """
    rounding = 1e-12 if conditional.dtype == torch.float64 else 1e-5
    transposed = conditional.T  # [Z, C]
    correct = []
    for chunk, labels in row_chunks(probs, target, width=conditional.shape[0]):
        with torch.autocast(device_type=chunk.device.type, enabled=False):
            eep = chunk @ transposed  # [m, Z] @ [Z, C] -> [m, C]
        best = eep >= eep.amax(dim=1, keepdim=True) * (1 - rounding)  # [m, C]
        own = best.gather(1, labels.unsqueeze(1)).squeeze(1)  # [m]
        correct.append(own.to(eep.dtype) / best.sum(dim=1))
    return torch.cat(correct)
