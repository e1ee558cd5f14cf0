"""Leave-one-out accuracy of the nearest neighbours by cosine, on a sample of bounded size."""

import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype
from lightning_leep.functional.inputs import check_num_classes, feature_rows
from lightning_leep.functional.nleep import row_keys

#: Most rows of the sample: the work is quadratic in it. About as many come from each class.
MAX_SAMPLE_ROWS = 1_500
#: Neighbours that vote.
NUM_NEIGHBOURS = 5
#: Squared distances that differ by less than this share of them, or by rounding, are equal.
EQUAL = 1e-9
#: Rows that look for their neighbours at once.
QUERIES = 256


def nearest_neighbour_accuracy(
    features: Tensor,
    target: Tensor,
    num_target_classes: int,
    max_rows: int = MAX_SAMPLE_ROWS,
    seed: int = 0,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Accuracy with which the 5 nearest other rows name a row's class, on a class-balanced sample of the rows.

    Rows are near if their cosine :math:`x_i^\top x_j / (|x_i| |x_j|)` is large. For a row of zeros it counts as 1/2
    with other rows and 1 with other rows of zeros. All rows that are as near as the fifth vote as well, and a tie of k
    classes counts 1/k. A row that is the only one of its class in the sample is left out of the mean. The sample has at
    most ``max_rows`` // C rows of each class (2 at least), those with the smallest seeded hash of their values, so it
    depends neither on the order of the rows nor on how processes share them. With classes of different sizes the
    accuracy is that on balanced classes.

    Source: Cover and Hart, "Nearest neighbor pattern classification", IEEE Trans. on Information Theory 13 (1967).

    ``features``, ``target``, result (0-d, in 0..1) and errors are as for
    :func:`~lightning_leep.functional.h_score.h_score`; it is also an error if no class has 2 rows. ``seed`` is that of
    the hash.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0, 1.0], [0.2, 0.8], [0.1, 1.2], [1.0, 0.1], [1.2, 0.0], [0.9, 0.3]])
        >>> nearest_neighbour_accuracy(features, torch.tensor([0, 0, 0, 1, 1, 1]), num_target_classes=2).item()
        0.0
    """
    check_num_classes("max_rows", max_rows)
    rows, labels = feature_rows(features, target, num_target_classes, ignore_index=ignore_index)  # [n, d], [n]
    chosen = balanced_sample(labels, row_keys(rows, seed), num_target_classes, max_rows)
    correct = neighbour_votes(rows[chosen], labels[chosen])
    if not len(correct) or bool(correct.isnan().all()):
        raise ValueError("Nearest neighbours need a class with at least 2 rows in `target`, got none.")
    return correct.nanmean()


def balanced_sample(labels: Tensor, keys: Tensor, num_target_classes: int, max_rows: int) -> Tensor:
    """Places of the ``max_rows`` // C (or 2) rows with the smallest keys of each class, in the order of the keys.

    ``labels`` and ``keys``, those of :func:`~lightning_leep.functional.nleep.row_keys`, are ``[n]``.
    """
    by_key = keys.to(labels.device).argsort(stable=True)
    order = by_key[labels[by_key].argsort(stable=True)]  # by class, then by key
    counts = torch.bincount(labels, minlength=num_target_classes)
    starts = counts.cumsum(0) - counts
    within = torch.arange(len(order), device=labels.device) - starts[labels[order]]
    kept = torch.zeros_like(labels, dtype=torch.bool)
    kept[order[within < max(2, max_rows // num_target_classes)]] = True
    return by_key[kept[by_key]]


def neighbour_votes(rows: Tensor, labels: Tensor) -> Tensor:
    """``[n]``, 1 if the neighbours of a row of ``rows [n, d]`` name its class, 1/k in a tie; NaN if it has no other."""
    dtype, device = accumulation_dtype(rows.device), rows.device
    right = torch.full((len(rows),), torch.nan, dtype=dtype, device=device)
    counts = torch.bincount(labels)
    counted = (counts[labels] > 1).nonzero().squeeze(1)  # [m]
    if not len(counted):
        return right
    units = rows.to(dtype)
    units = units / torch.linalg.vector_norm(units, dim=1, keepdim=True).clamp(min=torch.finfo(dtype).tiny)
    units = units - units.mean(dim=0)  # distances stay, and are exact even if all rows point the same way
    lengths = units.square().sum(dim=1)  # [n]
    rounding = 16 * torch.finfo(dtype).eps * lengths.max()
    one_hot = torch.nn.functional.one_hot(labels, len(counts)).to(dtype)  # [n, C]
    neighbours = min(NUM_NEIGHBOURS, len(rows) - 1)
    with torch.autocast(device_type=device.type, enabled=False):
        for places in counted.split(QUERIES):
            distances = lengths[places].unsqueeze(1) + lengths - 2 * (units[places] @ units.T)  # [m, n]
            distances[torch.arange(len(places), device=device), places] = torch.inf
            farthest = distances.topk(neighbours, largest=False).values[:, -1:]  # [m, 1]
            votes = (distances <= farthest * (1 + EQUAL) + rounding).to(dtype) @ one_hot  # [m, C]
            best = (votes == votes.amax(dim=1, keepdim=True)).to(dtype)
            right[places] = best.gather(1, labels[places].unsqueeze(1)).squeeze(1) / best.sum(dim=1)
    return right
