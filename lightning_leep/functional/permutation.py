"""What LEEP would be if the labels had nothing to do with the images: the same rows with shuffled labels."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_leep.functional.chunks import accumulation_dtype, joined_blocks
from lightning_leep.functional.inputs import check_num_classes
from lightning_leep.functional.leep import conditional_probability, eep_likelihood, joint_probability

#: Fewest shuffles for which the p-value (1 + shuffles that score as high) / (1 + shuffles) can be 0.05.
MIN_PERMUTATIONS = 19


def check_num_permutations(num_permutations: object) -> None:
    """Raise ``ValueError`` unless ``num_permutations`` is 0 or large enough for a small p-value."""
    check_num_classes("num_permutations", num_permutations, minimum=0)
    if num_permutations in range(1, MIN_PERMUTATIONS):
        raise ValueError(
            f"`num_permutations` must be 0 or at least {MIN_PERMUTATIONS}, the fewest that can give a p-value of 0.05, "
            f"got {num_permutations}."
        )


def permutation_null(
    probs: Sequence[Tensor],
    target: Sequence[Tensor],
    num_target_classes: int,
    num_source_classes: int,
    num_permutations: int = 20,
    seed: int = 0,
    reduce: Callable[[Tensor], Tensor] = lambda value: value,
    rank: int = 0,
    world_size: int = 1,
) -> Tensor:
    r"""LEEP with the labels shuffled among the rows, several times.

    Plain LEEP of an uninformative source lies above its floor -H(Y), further for fewer rows and for a more confident
    source. The null distribution says by how much, without another forward pass.

    The labels are shuffled among the rows of all processes, and no label is sent: a shared generator draws how many
    labels of each class a process gets (multivariate hypergeometric), and a generator of its own which of its rows get
    them.

    It takes source distributions in blocks ``[m, Z]`` and labels in blocks ``[m]``, the number B of shuffles, a
    ``seed`` that is the same on every process, the function ``reduce`` that sums a tensor over the processes, and the
    number ``rank`` of this one. It returns LEEP of each shuffle ``[B]``, in nats.
    """
    device = probs[0].device if probs else torch.device("cpu")
    dtype = accumulation_dtype(device)
    labels = torch.cat([torch.zeros(0, dtype=torch.long), *(block.cpu() for block in target)])  # [n]
    class_counts = reduce(torch.bincount(labels, minlength=num_target_classes)).numpy()  # [C]
    shares = torch.zeros(world_size, dtype=torch.long)
    shares[rank] = len(labels)
    num_rows = reduce(shares).tolist()  # rows of each process
    values = []
    for permutation in range(num_permutations):
        shuffled = torch.from_numpy(deal_labels(class_counts, num_rows, rank, (seed, permutation))).to(device)  # [n]
        dealt = shuffled.split([len(block) for block in target])
        joint = torch.zeros(num_target_classes, num_source_classes, dtype=dtype, device=device)
        for rows, block in joined_blocks(probs, dealt):
            joint += joint_probability(rows, block, num_target_classes)
        conditional = conditional_probability(reduce(joint))  # [C, Z]
        total = torch.zeros((), dtype=dtype, device=device)
        for rows, block in joined_blocks(probs, dealt):
            total += eep_likelihood(rows, block, conditional).log().sum()
        values.append(reduce(total) / sum(num_rows))
    return torch.stack(values) if values else torch.zeros(0, dtype=dtype, device=device)


def deal_labels(class_counts: np.ndarray, num_rows: list[int], rank: int, seed: tuple[int, int]) -> np.ndarray:
    """Labels ``[n]`` of one process in a shuffle of all labels."""
    # `rank + 1`, since seeds that differ only in trailing zeros give the same numbers.
    shared, own = np.random.default_rng(seed), np.random.default_rng([*seed, rank + 1])
    left = class_counts
    for rows in num_rows[:rank]:
        left = left - shared.multivariate_hypergeometric(left, rows)  # [C]
    if rank + 1 < len(num_rows):  # the last process gets what the others leave
        left = shared.multivariate_hypergeometric(left, num_rows[rank])
    return own.permutation(np.repeat(np.arange(len(class_counts)), left))
