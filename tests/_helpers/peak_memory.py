"""Measure the memory that a call really takes, in a process of its own."""

import ctypes
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

needs_peak_memory = pytest.mark.skipif(
    not (os.path.exists("/proc/self/clear_refs") and os.access("/proc/self/clear_refs", os.W_OK)),
    reason="the peak memory of a process can be reset on Linux only",
)


M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def return_freed_blocks() -> None:
    """From here on in this process, a large block that is freed goes back to the system at once.

    glibc otherwise keeps it, and puts later blocks into many such holes: each counts as resident, though few are in
    use at a time. Call this before the first large block is made.
    """
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**17)


def _status(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return 1024 * int(match.group(1))


def peak_extra_bytes(function: Callable[..., Any], *args: Any) -> int:
    """How far the resident memory of this process rises above where it is while ``function(*args)`` runs."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what was freed but is still resident would be used again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak restarts from what is resident now
    before = _status("VmRSS")
    function(*args)
    return _status("VmHWM") - before
