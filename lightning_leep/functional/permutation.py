"""What LEEP would be if the labels had nothing to do with the images: labels shuffled, the same rows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_leep.functional.joint import (
    accumulation_dtype,
    conditional_probability,
    eep_likelihood,
    joint_probability,
)


def permutation_null(
    probs: Sequence[Tensor],
    target: Sequence[Tensor],
    num_target_classes: int,
    num_source_classes: int,
    num_permutations: int = 20,
    seed: int = 0,
    reduce: Callable[[Tensor], Tensor] = lambda value: value,
) -> Tensor:
    r"""LEEP with the labels shuffled among the rows, several times over.

    Plain LEEP of an uninformative source lies above its floor -H(Y), the more so the fewer rows and the more
    confident the source. The null distribution says by how much, at the price of no forward pass.

    Args:
        probs: Source distributions in blocks ``[m, Z]``.
        target: Labels in blocks ``[m]``.
        num_target_classes: C.
        num_source_classes: Z.
        num_permutations: B.
        seed: Seed of a private generator; processes should differ in it.
        reduce: Sum over processes. Labels are then shuffled among the rows of each process alone, which is as valid a
            null (the rows of a process are exchangeable under it) and moves no label.

    Returns:
        ``[B]``, LEEP of each shuffle.
    """
    device = probs[0].device if probs else torch.device("cpu")
    dtype = accumulation_dtype(device)
    generator = torch.Generator().manual_seed(seed)
    sizes = [len(labels) for labels in target]
    labels = torch.cat(list(target)) if target else torch.zeros(0, dtype=torch.long, device=device)  # [n]
    values = []
    for _ in range(num_permutations):
        shuffled = labels[torch.randperm(len(labels), generator=generator).to(device)].split(sizes)
        joint = torch.zeros(num_target_classes, num_source_classes, dtype=dtype, device=device)
        for rows, block in zip(probs, shuffled, strict=True):
            joint += joint_probability(rows, block, num_target_classes)
        conditional = conditional_probability(reduce(joint))  # [C, Z]
        sums = torch.zeros(2, dtype=dtype, device=device)
        for rows, block in zip(probs, shuffled, strict=True):
            sums[0] += eep_likelihood(rows, block, conditional).log().sum()
            sums[1] += len(block)
        total, count = reduce(sums)
        values.append(total / count)
    return torch.stack(values) if values else torch.zeros(0, dtype=dtype, device=device)
