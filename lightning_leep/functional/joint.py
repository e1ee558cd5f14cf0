"""The empirical joint of target labels and source classes, and the expected empirical predictor (EEP) made from it.

Nguyen et al., ICML 2020 (arXiv:2002.12462), section 3. Rows are converted to the accumulation dtype a chunk at a time,
so that no function here holds more than a few megabytes beside its input.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

#: Bytes of one chunk in the accumulation dtype: within the cache of a CPU, enough to fill an accelerator.
CHUNK_BYTES_CPU = 2**21
CHUNK_BYTES_ACCELERATOR = 2**24

#: CPU memory that no block uses at the moment, see :func:`scratch`; as many pieces as were ever in use at one time.
_spare: list[Tensor] = []


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices without float64 (Apple's MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


@contextmanager
def scratch(shape: Sequence[int], device: torch.device) -> Iterator[Tensor]:
    """Lend uninitialised memory of the accumulation dtype and of ``shape``, for the block alone.

    On the CPU the same memory is lent again and again: the first touch of fresh pages costs more time than arithmetic
    on them, and whether freed memory comes back as fresh pages depends on what the process did before. The allocators
    of accelerators keep theirs.
    """
    dtype = accumulation_dtype(device)
    if device.type != "cpu":
        yield torch.empty(shape, dtype=dtype, device=device)
        return
    size = math.prod(shape) * dtype.itemsize
    try:
        memory = _spare.pop()  # of which no other thread has it
    except IndexError:
        memory = torch.empty(0, dtype=torch.uint8, device=device)
    if memory.nbytes < size:
        with torch.inference_mode(False):  # an inference tensor could not be lent outside that mode
            memory = torch.empty(max(size, CHUNK_BYTES_CPU), dtype=torch.uint8, device=device)
    try:
        yield memory[:size].view(dtype).view(*shape)
    finally:
        _spare.append(memory)


def row_chunks(rows: Tensor, target: Tensor, width: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``(rows [m, K], target [m])`` in the accumulation dtype, ``m`` such that a chunk stays small.

    A chunk is valid until the next one is asked for: they share one buffer, see :func:`scratch`. It must not be
    changed, as it may be a part of ``rows`` itself.

    Args:
        rows: ``[n, K]`` floating point.
        target: ``[n]`` integer labels.
        width: Columns of the largest temporary the caller makes for each row; K when None.
    """
    dtype = accumulation_dtype(rows.device)
    chunk_bytes = CHUNK_BYTES_CPU if rows.device.type == "cpu" else CHUNK_BYTES_ACCELERATOR
    size = max(1, chunk_bytes // (8 * max(1, rows.shape[1], width or 0)))
    rows = rows.detach()
    chunks = ((c, labels) for c, labels in zip(rows.split(size), target.split(size), strict=True) if c.shape[0])
    if rows.dtype == dtype:
        yield from chunks
        return
    with scratch((min(size, rows.shape[0]), rows.shape[1]), rows.device) as buffer:
        for chunk, labels in chunks:
            yield buffer[: chunk.shape[0]].copy_(chunk), labels


def joined_blocks(rows: Sequence[Tensor], target: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of rows with their labels, small neighbours joined to the size of a chunk: small batches cost time.

    As in :func:`row_chunks`, a block is valid until the next one is asked for.
    """
    pending: list[tuple[Tensor, Tensor]] = []
    size = 0
    for block, labels in zip(rows, target, strict=True):
        limit = CHUNK_BYTES_CPU if block.device.type == "cpu" else CHUNK_BYTES_ACCELERATOR
        block_size = 8 * block.numel()
        if pending and (size + block_size > limit or block.device != pending[0][0].device):
            yield from _joined(pending)
            pending, size = [], 0
        pending.append((block, labels))
        size += block_size
    yield from _joined(pending)


def _joined(blocks: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    if len(blocks) < 2:
        yield from blocks
        return
    rows, labels = zip(*blocks, strict=True)
    with scratch((sum(map(len, rows)), rows[0].shape[1]), rows[0].device) as joined:
        for part, block in zip(joined.split([len(block) for block in rows]), rows, strict=True):
            part.copy_(block)
        yield joined, torch.cat(labels)


def joint_probability(probs: Tensor, target: Tensor, num_target_classes: int, earlier: Tensor | None = None) -> Tensor:
    r"""Sum of the source distributions of each target class, :math:`J(y, z) = \sum_{i: y_i = y} \theta_i(z)`.

    Divided by n it is the empirical joint distribution; it is left as a sum so that batches and processes add up.

    Args:
        probs: ``[n, Z]`` source distributions.
        target: ``[n]`` integer labels in ``0 .. C-1``.
        num_target_classes: C.
        earlier: ``[C, Z]``, sums over earlier rows, that the new ones are added to; it stays what it is.

    Returns:
        ``[C, Z]`` in the accumulation dtype.
    """
    dtype = accumulation_dtype(probs.device)
    if earlier is None:
        joint = torch.zeros((num_target_classes, probs.shape[1]), dtype=dtype, device=probs.device)
    else:
        joint = earlier.to(dtype, copy=True)
    for chunk, labels in row_chunks(probs, target):
        joint.index_add_(0, labels, chunk)
    return joint


def conditional_probability(joint: Tensor) -> Tensor:
    r""":math:`P(y|z) = J(y, z) / \sum_y J(y, z)`, shape ``[C, Z]``; 0 for a source class without any mass."""
    mass = joint.sum(dim=0)  # [Z]
    return torch.where(mass > 0, joint / mass, 0.0)


def eep_likelihood(probs: Tensor, target: Tensor, conditional: Tensor) -> Tensor:
    r"""Probability that the EEP gives to each row's own label, :math:`q_i(y_i) = \sum_z P(y_i|z) \theta_i(z)`.

    Args:
        probs: ``[n, Z]`` source distributions.
        target: ``[n]`` integer labels.
        conditional: ``[C, Z]``, :math:`P(y|z)`.

    Returns:
        ``[n]`` in the accumulation dtype.
    """
    # Sums from a device without float64 may score rows that were moved to one with it.
    conditional = conditional.to(accumulation_dtype(probs.device))
    likelihood = []
    for chunk, labels in row_chunks(probs, target):
        with scratch(chunk.shape, chunk.device) as own:
            torch.index_select(conditional, 0, labels, out=own)  # [m, Z]
            likelihood.append(own.mul_(chunk).sum(dim=1))  # [m]
    return torch.cat(likelihood) if likelihood else conditional.new_zeros(0)


def leave_one_out_likelihood(
    probs: Tensor, target: Tensor, joint: Tensor, class_counts: Tensor, prior_weight: float = 1.0
) -> Tensor:
    r"""Probability that the EEP made from all other rows gives to each row's own label.

    .. math::
        q_i(y_i) = \sum_z \theta_i(z) \frac{J_{-i}(y_i, z) + a \, \pi_{-i}(y_i)}{J_{-i}(z) + a}

    where :math:`J_{-i}` is the joint without row i, :math:`\pi_{-i}` the class frequencies of the other rows and
    :math:`a` the weight of the Dirichlet prior that they make. Summed over y it is 1.

    Args:
        probs: ``[n, Z]`` source distributions.
        target: ``[n]`` integer labels.
        joint: ``[C, Z]``, sums over all rows, row i included.
        class_counts: ``[C]``, rows of each class.
        prior_weight: a, in rows for each source class.

    Returns:
        ``[n']`` in the accumulation dtype, without the rows that are the only one of their class: no other row can
        say anything about them.
    """
    joint = joint.to(accumulation_dtype(probs.device))  # as in `eep_likelihood`
    counts = class_counts.to(joint.dtype)
    mass = joint.sum(dim=0)  # [Z]
    likelihood = []
    for chunk, labels in row_chunks(probs, target):
        others = counts[labels] - 1  # [m]
        if not bool((others > 0).all()):
            chunk, labels, others = chunk[others > 0], labels[others > 0], others[others > 0]  # [m', Z], [m'], [m']
        prior = prior_weight * others / (counts.sum() - 1)  # [m']
        # The differences are sums of probabilities: below 0 they are rounding.
        with scratch(chunk.shape, chunk.device) as own, scratch(chunk.shape, chunk.device) as rest:
            torch.index_select(joint, 0, labels, out=own).sub_(chunk).clamp_(min=0.0)  # [m', Z]
            torch.sub(mass, chunk, out=rest).clamp_(min=0.0)  # [m', Z]
            own.add_(prior.unsqueeze(1)).div_(rest.add_(prior_weight))
            likelihood.append(own.mul_(chunk).sum(dim=1))  # [m']
    return torch.cat(likelihood) if likelihood else joint.new_zeros(0)


def eep_correct(probs: Tensor, target: Tensor, conditional: Tensor) -> Tensor:
    r"""Whether the EEP's most probable class :math:`\arg\max_y q_i(y)` is the row's own; ``[n]`` of 0.0 and 1.0.

    A tie is shared: a row whose own label is among k equally probable ones counts 1/k, so that an uninformative
    source scores the chance level whatever the order of the classes. Probabilities within a relative 1e-12 of
    each other (1e-5 where there is no float64) count as equal, which is the rounding of the sums.
    """
    rounding = 1e-12 if conditional.dtype == torch.float64 else 1e-5
    transposed = conditional.T.to(accumulation_dtype(probs.device))  # [Z, C], as in `eep_likelihood`
    correct = []
    for chunk, labels in row_chunks(probs, target, width=conditional.shape[0]):
        with torch.autocast(device_type=chunk.device.type, enabled=False):
            eep = chunk @ transposed  # [m, Z] @ [Z, C] -> [m, C]
        best = eep >= eep.amax(dim=1, keepdim=True) * (1 - rounding)  # [m, C]
        own = best.gather(1, labels.unsqueeze(1)).squeeze(1)  # [m]
        correct.append(own.to(eep.dtype) / best.sum(dim=1))
    return torch.cat(correct) if correct else conditional.new_zeros(0)
