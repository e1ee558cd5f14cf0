"""NCE: negative conditional entropy of the labels given the source's decisions."""

import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype
from lightning_leep.functional.inputs import check_flag, labelled_rows, probability_rows


def nce(
    preds: Tensor, target: Tensor, num_target_classes: int, from_logits: bool = True, ignore_index: int | None = None
) -> Tensor:
    r"""Negative conditional entropy of the target labels given the source's most probable classes.

    .. math::
        \text{NCE} = -H(Y|Z) = \frac{1}{n} \sum_{y, z} N(y, z) \log \frac{N(y, z)}{\sum_{y'} N(y', z)}, \qquad
        z_i = \arg\max_z \theta_i(z)

    where N(y, z) is the number of images of target class y whose most probable source class is z; of equally probable
    ones, the first. NCE is at most 0 and at least minus the entropy of the labels. Higher is better. Natural logarithm
    (nats).

    Source: Tran, Nguyen, Hassner, "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019
    (arXiv:1908.08142), with the source's decisions in place of its labels as in Nguyen et al., ICML 2020.

    Arguments, result (0-d, in nats) and errors are as for :func:`~lightning_leep.functional.leep.leep`; ``from_logits``
    decides only how ``preds`` are checked.

    Example:
        >>> import torch
        >>> preds = torch.tensor([[2.0, 0.0], [1.0, 0.0], [3.0, 1.0], [0.0, 1.0]])
        >>> round(nce(preds, torch.tensor([0, 0, 1, 1]), num_target_classes=2).item(), 4)
        -0.4774
    """
    check_flag("from_logits", from_logits)
    rows, labels = labelled_rows(preds, target, num_target_classes, ignore_index=ignore_index, two_for="NCE")
    check_decisions(rows, from_logits)
    return nce_from_counts(decision_counts(rows, labels, num_target_classes))


def check_decisions(preds: Tensor, from_logits: bool) -> None:
    """Raise ``ValueError`` unless each row of ``preds [n, Z]`` has a largest logit, or holds probabilities."""
    if not from_logits:
        probability_rows(preds, from_logits)  # only for its checks
    elif preds.shape[0] and not bool(preds.amax(dim=1).isfinite().all()):  # the maximum of a row with NaN is NaN
        raise ValueError("`preds` must hold finite logits (-inf aside), got NaN, +inf or a row of -inf alone.")


def decision_counts(preds: Tensor, target: Tensor, num_target_classes: int) -> Tensor:
    """``[C, Z]`` int64, N(y, z): rows of class y whose largest output, the first of equal ones, is z."""
    num_source_classes = preds.shape[1]
    cells = target * num_source_classes + preds.argmax(dim=1)  # [n]
    counts = torch.bincount(cells, minlength=num_target_classes * num_source_classes)  # [C * Z]
    return counts.reshape(num_target_classes, num_source_classes)


def nce_from_counts(counts: Tensor) -> Tensor:
    """NCE in nats, 0-d, from the contingency table N(y, z), ``[C, Z]``; NaN for a table without counts."""
    table = counts.to(accumulation_dtype(counts.device))
    share = table / table.sum(dim=0).clamp(min=1)  # [C, Z], P(y|z)
    return (torch.xlogy(table, share).sum() / table.sum()).clamp(max=0.0)
