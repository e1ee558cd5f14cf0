"""What a metric remembers, to be compared before and after, and the memory that operations take."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def snapshot(metric: torch.nn.Module) -> dict[str, Any]:
    """Everything a metric remembers: its states and torchmetrics' own attributes, copied."""
    return {k: deepcopy(v) for k, v in vars(metric).items() if k not in ("update", "compute", "_update_signature")}


def assert_unchanged(metric: torch.nn.Module, before: dict[str, Any]) -> None:
    """Fail unless the metric remembers exactly what it did, to the bit and the dtype."""
    after = snapshot(metric)
    assert after.keys() == before.keys()
    for name in before:
        old, new = tree_leaves(before[name]), tree_leaves(after[name])
        assert len(old) == len(new), f"{name} changed"
        for a, b in zip(old, new, strict=True):
            if isinstance(a, Tensor):
                torch.testing.assert_close(b, a, rtol=0.0, atol=0.0, equal_nan=True, msg=f"{name} changed")
            elif not callable(a):
                assert a == b, f"{name} changed from {a} to {b}"


class AllocatedBytes(TorchDispatchMode):
    """Sum of the bytes of every new tensor that operations return within the block, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self.total += tensor.untyped_storage().nbytes()
        return result
