"""Use what belongs to the user, the source model and the data set, and leave both as they were."""

import copy
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_leep.utils.reachable import reachable

#: Classes of random number generators that carry a state of their own.
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


@contextmanager
def borrowed_module(module: nn.Module, device: torch.device, trained: nn.Module) -> Iterator[None]:
    """Have a module's parameters and buffers on ``device``, and give each its own storage back afterwards.

    Tensors that it shares with the module in training are there already and stay as they are. Its others take their
    floating-point type, since the Trainer's precision may have converted the shared ones alone.

    Args:
        module: The module to run.
        device: Where it is to run.
        trained: The module in training.
    """
    shared = {id(tensor) for tensor in _tensors(trained)}
    dtype = next((t.dtype for t in _tensors(module) if id(t) in shared and t.is_floating_point()), None)
    moved: list[tuple[Tensor, Tensor]] = []
    try:
        for tensor in [tensor for tensor in _tensors(module) if not tensor.is_meta]:
            data = tensor.data
            borrowed = data.to(device, dtype if tensor.is_floating_point() and id(tensor) not in shared else None)
            if borrowed is not data:
                moved.append((tensor, data))
                tensor.data = borrowed
        yield
    finally:
        for tensor, data in moved:
            tensor.data = data


@contextmanager
def preserved_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Give the modules' buffers their values back that a forward pass changes, as a quantisation observer does.

    Args:
        modules: Each with its own buffers; those of submodules do not count.
    """
    buffers = [(layer, name, buffer) for layer in modules for name, buffer in layer.named_buffers(recurse=False)]
    buffers = [place for place in buffers if not (place[2].is_meta or is_lazy(place[2]))]
    values = [buffer.detach().clone() for _, _, buffer in buffers]
    try:
        yield
    finally:
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
def preserved_generators(*holders: Any) -> Iterator[None]:
    """Give the random number generators of torch, NumPy and Python that objects reach their states back afterwards.

    Without worker processes, augmentations draw from the very generators that training will draw from.
    """
    # What draws from the operating system has no state.
    generators = [g for g in reachable(*holders, kinds=GENERATORS) if not isinstance(g, random.SystemRandom)]
    states = [(generator, _state(generator)) for generator in generators]
    try:
        yield
    finally:
        for generator, state in states:
            _restore(generator, state)


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
