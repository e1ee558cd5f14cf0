"""Use what belongs to the user, the source model and the data set, and leave both as they were."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: How deep generators are searched for below a data set: data set, transform, its list, its members and their own.
SEARCH_DEPTH = 8
#: Longer lists hold data, not transforms.
SEARCH_WIDTH = 64


@contextmanager
def borrowed_module(module: nn.Module | None, device: torch.device, trained: nn.Module) -> Iterator[None]:
    """Have a module's parameters and buffers on ``device``, and give each its own storage and values back afterwards.

    Tensors that it shares with the module in training are there already and stay as they are. Its others take their
    floating-point type, since the Trainer's precision may have converted the shared ones alone.
    Buffers that a forward pass changes even in evaluation mode (of a quantisation observer, say) are restored.

    Args:
        module: The module to run; None does nothing.
        device: Where it is to run.
        trained: The module in training.
    """
    if module is None:
        yield
        return
    shared = {id(tensor) for tensor in _tensors(trained)}
    dtype = next((t.dtype for t in _tensors(module) if id(t) in shared and t.is_floating_point()), None)
    buffers = [(layer, name, b) for layer in module.modules() for name, b in layer.named_buffers(recurse=False)]
    values = [b.detach().clone() for _, _, b in buffers]
    moved: list[tuple[Tensor, Tensor]] = []
    try:
        for tensor in _tensors(module):
            data = tensor.data
            borrowed = data.to(device, dtype if tensor.is_floating_point() and id(tensor) not in shared else None)
            if borrowed is not data:
                moved.append((tensor, data))
                tensor.data = borrowed
        yield
    finally:
        for tensor, data in moved:
            tensor.data = data
        with torch.no_grad():
            for (layer, name, buffer), value in zip(buffers, values, strict=True):
                if getattr(layer, name) is not buffer:
                    setattr(layer, name, buffer)
                if not _identical(buffer, value):
                    buffer.copy_(value)


def shares_weights(module: nn.Module, other: nn.Module) -> bool:
    """Whether a parameter or buffer belongs to both modules."""
    tensors = {id(tensor) for tensor in _tensors(other)}
    return any(id(tensor) in tensors for tensor in _tensors(module))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


def _identical(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())


@contextmanager
def preserved_generators(root: Any) -> Iterator[None]:
    """Give the random number generators that a data set carries in its attributes their states back afterwards.

    Without worker processes, augmentations draw from the very generators that training will draw from. Those of
    torch, NumPy and Python are found in attributes, lists and dictionaries a few levels down.
    """
    generators: dict[int, Any] = {}
    _collect_generators(root, generators, SEARCH_DEPTH, set())
    states = [(generator, _state(generator)) for generator in generators.values()]
    try:
        yield
    finally:
        for generator, state in states:
            _restore(generator, state)


def _collect_generators(holder: Any, found: dict[int, Any], depth: int, seen: set[int]) -> None:
    if isinstance(holder, torch.Generator | np.random.Generator | np.random.RandomState | random.Random):
        found[id(holder)] = holder
        return
    if depth == 0 or id(holder) in seen or isinstance(holder, str | bytes | int | float | Tensor | np.ndarray | type):
        return
    seen.add(id(holder))
    if isinstance(holder, dict):
        parts = list(holder.values())
    elif isinstance(holder, list | tuple):
        parts = list(holder)
    else:
        parts = list(getattr(holder, "__dict__", {}).values())
    if len(parts) <= SEARCH_WIDTH:
        for part in parts:
            _collect_generators(part, found, depth - 1, seen)


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.getstate()


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
