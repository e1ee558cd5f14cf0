"""How a scoring pass keeps the rows that its scores are made from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

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


def check_memory(memory: str | int, top_k: int, nleep: bool = False) -> None:
    """Raise ``ValueError`` unless ``memory`` is one of ``WAYS`` or a number of bytes, and ``top_k`` positive.

    N-LEEP fits its mixture to the features themselves, so that it needs them as they are.
    """
    is_budget = isinstance(memory, int) and not isinstance(memory, bool) and memory > 0
    if not is_budget and memory not in WAYS:
        raise ValueError(f"`memory` must be one of {', '.join(WAYS)} or a positive number of bytes, got {memory!r}.")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ValueError(f"`top_k` must be a positive integer, got {top_k!r}.")
    if nleep and memory in ("bfloat16", "second_pass"):
        raise ValueError(
            f"`nleep=True` needs the features of all rows kept as they are, got `memory={memory!r}`. "
            "Pass another `memory`, or `nleep=False`."
        )


def check_readable_twice(dataloader: Iterable[Any], memory: RowMemory) -> None:
    """Raise ``ValueError`` if a second pass is needed and the loader is an iterator, gone after the first."""
    if not memory.keep_rows and isinstance(dataloader, Iterator):
        raise ValueError(
            f"`dataloader` must be readable twice for a second pass, got an iterator ({type(dataloader).__name__}). "
            "Pass the loader itself, or another `memory`."
        )


def choose_memory(memory: str | int, top_k: int, needed: int | None, nleep: bool = False) -> RowMemory:
    """The way that the user named, or the most exact one that fits into the bytes that the user granted.

    Args:
        memory: One of ``WAYS``, or the bytes that each process may spend on rows.
        top_k: Source probabilities kept of each row by ``"top_k"``.
        needed: Bytes of all rows of a process; None when the length of the loader is unknown.
        nleep: Whether N-LEEP is asked for, which needs kept features.

    Raises:
        ValueError: If N-LEEP is asked for and the rows do not fit.
    """
    if isinstance(memory, int):
        if needed is not None and needed <= memory:
            return RowMemory(description=f"rows kept where they were computed ({needed} of {memory} bytes)")
        size = "an unknown number of" if needed is None else str(needed)
        if nleep:
            raise ValueError(
                f"`nleep=True` needs the features of all rows kept, but {size} bytes do not fit into `memory={memory}`."
            )
        return RowMemory(
            keep_rows=False,
            description=f"no rows kept ({size} bytes do not fit into {memory}); the loader was read twice",
        )
    if memory == "cpu":
        return RowMemory(on_cpu=True, description="rows kept on the CPU")
    if memory == "bfloat16":
        description = "rows kept in bfloat16: scores are those of the rounded rows"
        return RowMemory(dtype=torch.bfloat16, description=description)
    if memory == "second_pass":
        return RowMemory(keep_rows=False, description="no rows kept; the loader was read twice")
    if memory == "top_k":
        description = f"the {top_k} largest probabilities and the features of each row kept; LEEP estimated"
        return RowMemory(top_k=top_k, description=description)
    return RowMemory()
