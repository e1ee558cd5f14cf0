"""Rows a chunk at a time, in the dtype that sums are made in: a score needs few megabytes beside its input."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

#: Bytes of one chunk in the accumulation dtype: within the cache of a CPU, enough to fill an accelerator.
CHUNK_BYTES_CPU = 2**21
CHUNK_BYTES_ACCELERATOR = 2**24


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices without float64 (Apple's MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


def _chunk_bytes(device: torch.device) -> int:
    return CHUNK_BYTES_CPU if device.type == "cpu" else CHUNK_BYTES_ACCELERATOR


def row_chunks(rows: Tensor, target: Tensor, width: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``(rows [m, K], target [m])`` in the accumulation dtype, ``m`` such that a chunk is small.

    ``width`` is that of the caller's largest temporary, K when None. A chunk may be a part of ``rows`` itself, so it
    must not be changed. No rows give one empty chunk.
    """
    dtype = accumulation_dtype(rows.device)
    size = max(1, _chunk_bytes(rows.device) // (8 * max(1, rows.shape[1], width or 0)))
    for chunk, labels in zip(rows.detach().split(size), target.split(size), strict=True):
        yield chunk.to(dtype), labels


def joined_blocks(rows: Sequence[Tensor], target: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield blocks of rows with their labels, small neighbours joined, so that many small batches cost no more time."""
    pending: list[tuple[Tensor, Tensor]] = []
    size = 0
    for block, labels in zip(rows, target, strict=True):
        block_size = 8 * block.numel()
        if pending and size + block_size > _chunk_bytes(block.device):
            yield _joined(pending)
            pending, size = [], 0
        pending.append((block, labels))
        size += block_size
    if pending:
        yield _joined(pending)


def _joined(blocks: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(blocks) == 1:
        return blocks[0]
    rows, labels = zip(*blocks, strict=True)
    return torch.cat(rows), torch.cat(labels)
