"""How a scoring pass keeps the rows that its scores are made from."""

from dataclasses import dataclass

import torch

WAYS = ("device", "cpu", "bfloat16", "second_pass", "top_k")


@dataclass(frozen=True)
class RowMemory:
    """One way to keep rows, and what to say of it.

    Attributes:
        keep_rows: Whether rows are kept; if not, the loader is read a second time.
        on_cpu: Whether they are moved to the CPU.
        dtype: Smaller dtype they are kept in; None leaves them as they are.
        top_k: Number of source probabilities kept of each row; None keeps all.
        description: The same in words, for the report.
    """

    keep_rows: bool = True
    on_cpu: bool = False
    dtype: torch.dtype | None = None
    top_k: int | None = None
    description: str = "rows kept where they were computed"


def check_memory(memory: str | int, top_k: int) -> None:
    """Raise ``ValueError`` unless ``memory`` is one of ``WAYS`` or a number of bytes, and ``top_k`` positive."""
    is_budget = isinstance(memory, int) and not isinstance(memory, bool) and memory > 0
    if not is_budget and memory not in WAYS:
        raise ValueError(f"`memory` must be one of {', '.join(WAYS)} or a positive number of bytes, got {memory!r}.")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ValueError(f"`top_k` must be a positive integer, got {top_k!r}.")


def choose_memory(memory: str | int, top_k: int, needed: int | None) -> RowMemory:
    """The way that the user named, or the most exact one that fits into the bytes that the user granted.

    Args:
        memory: One of ``WAYS``, or the bytes that each process may spend on rows.
        top_k: Source probabilities kept of each row by ``"top_k"``.
        needed: Bytes of all rows of a process in float32; None when the length of the loader is unknown.
    """
    if isinstance(memory, int):
        if needed is not None and needed <= memory:
            return RowMemory(description=f"rows kept where they were computed ({needed} of {memory} bytes)")
        size = "an unknown number of" if needed is None else str(needed)
        return RowMemory(
            keep_rows=False,
            description=f"no rows kept ({size} bytes do not fit into {memory}); the loader was read twice",
        )
    if memory == "cpu":
        return RowMemory(on_cpu=True, description="rows kept on the CPU")
    if memory == "bfloat16":
        return RowMemory(dtype=torch.bfloat16, description="rows kept in bfloat16, so that scores are rounded")
    if memory == "second_pass":
        return RowMemory(keep_rows=False, description="no rows kept; the loader was read twice")
    if memory == "top_k":
        return RowMemory(top_k=top_k, description=f"the {top_k} largest probabilities of each row kept; LEEP estimated")
    return RowMemory()
