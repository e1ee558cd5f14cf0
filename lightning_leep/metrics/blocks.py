"""Rows kept in blocks, one for each batch: small ones joined, so that the time of an update does not grow."""

import torch
from torch import Tensor

#: Neighbours are joined as long as they stay below this together: large batches are never copied.
JOINED_BYTES = 2**16


def join_last(*columns: list[Tensor]) -> tuple[list[Tensor], ...]:
    """Parallel lists of blocks with their last blocks joined, in new lists.

    The last block is joined to the one before unless that is at least twice as large. So each row is copied a
    logarithm of times, and of small blocks in a row there is but a logarithm, where the time to copy a list of all
    batches at every update would grow with their number.

    Args:
        columns: Lists of one length, such as rows and their labels; the blocks of the first are measured.
    """
    rows = columns[0]
    start, size = len(rows) - 1, rows[-1].nbytes if rows else 0
    while start > 0 and rows[start - 1].nbytes < 2 * size and _can_join(rows[start - 1], rows[start], size):
        start -= 1
        size += rows[start].nbytes
    if start >= len(rows) - 1:
        return columns
    return tuple([*column[:start], torch.cat(column[start:])] for column in columns)


def _can_join(earlier: Tensor, later: Tensor, size: int) -> bool:
    same = earlier.dtype == later.dtype and earlier.device == later.device
    return same and earlier.nbytes + size <= JOINED_BYTES
