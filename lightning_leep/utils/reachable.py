"""What an object can reach: the modules that a function calls, the random generators that a data set draws from."""

import gc
import logging
import sys
import sysconfig
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

#: Objects that are looked into: enough for a large network or a nested data set, in less than a tenth of a second.
MOST_OBJECTS = 20_000
#: What holds more than this many others (samples, say) comes after everything else.
SEARCH_WIDTH = 64
#: Never looked into; nor are a Trainer, within whose reach is all of a run, and the code of these and other packages.
LEAVES = (
    *(str, bytes, bytearray, int, float, complex, type(None)),
    *(Tensor, np.ndarray, np.generic, CodeType, ModuleType, logging.Logger),
)
RUNS = {"Trainer", "Fabric"}
LIBRARIES = {"lightning", "lightning_fabric", "lightning_leep", "numpy", "pytorch_lightning", "torch", "torchmetrics"}


def reachable(*roots: Any, kinds: tuple[type, ...]) -> list[Any]:
    """Objects of some kinds among ``roots`` and what they hold, the nearest first.

    Followed is all that Python's garbage collector sees: attributes and slots, containers, bound methods,
    ``functools.partial``, closures and defaults of functions, and of the user's own functions and classes (not of
    installed packages) the globals that their code names. At most ``MOST_OBJECTS`` are looked into.

    Args:
        roots: Where the search starts.
        kinds: Classes; instances of their subclasses count.
    """
    found: list[Any] = []
    seen: dict[int, Any] = {}  # the objects as well: an id could be used again
    near, far = deque(roots), deque[Iterator[Any]]()
    drawn = 0
    while (near or far) and len(seen) + drawn < MOST_OBJECTS:
        if not near:  # some elements of each long list in turn
            elements = far.popleft()
            near.extend(islice(elements, SEARCH_WIDTH))
            drawn += len(near)
            if near:
                far.append(elements)
            continue
        holder = near.popleft()
        # Not `isinstance`: it asks the object for its class, and a proxy may do anything then.
        cls = type(holder)
        if id(holder) in seen or issubclass(cls, LEAVES):
            continue
        seen[id(holder)] = holder
        if issubclass(cls, kinds):
            found.append(holder)
        if not _is_run(cls):
            parts = _parts(holder)
            near.extend(parts) if len(parts) <= SEARCH_WIDTH else far.append(iter(parts))
    return found


def reachable_modules(*roots: Any) -> list[nn.Module]:
    """All modules among ``roots`` and what they reach, with all their submodules."""
    modules = reachable(*roots, kinds=(nn.Module,))
    # By id: a metric's `==` makes another metric.
    return list({id(part): part for module in modules for part in module.modules()}.values())


def outermost(modules: list[nn.Module]) -> list[nn.Module]:
    """Those of the modules that are no submodule of another."""
    inner = {id(part) for module in modules for part in module.children()}
    return [module for module in modules if id(module) not in inner]


def _parts(holder: Any) -> Sequence[Any]:
    if issubclass(type(holder), FunctionType):
        parts = [*(holder.__closure__ or ()), holder.__defaults__, holder.__kwdefaults__, holder.__dict__]
        return parts if _is_library(holder.__globals__.get("__name__")) else [*parts, *_named_globals(holder)]
    if issubclass(type(holder), type):
        return [] if _is_library(holder.__module__) else [*vars(holder).values(), *holder.__bases__]
    if type(holder) in (list, tuple):  # perhaps with millions of samples
        return holder[:MOST_OBJECTS]
    return gc.get_referents(holder)


def _named_globals(function: FunctionType) -> Iterator[Any]:
    """Values of the globals that a function's code names, also as attributes of the user's modules."""
    names = sorted(_names(function.__code__))  # in one order on all processes
    scopes = [function.__globals__]
    for scope in scopes:  # grows as it is read
        for value in [scope[name] for name in names if name in scope]:
            if not isinstance(value, ModuleType):
                yield value
            elif not _is_library(value.__name__) and not any(vars(value) is known for known in scopes):
                scopes.append(vars(value))


def _names(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _is_run(cls: type) -> bool:
    return any(base.__name__ in RUNS and _is_library(base.__module__) for base in cls.__mro__)


def _is_library(name: Any) -> bool:
    """Whether a module is an installed one or part of Python, and not the user's own."""
    if not isinstance(name, str):
        return False
    package = name.partition(".")[0]
    file = getattr(sys.modules.get(name), "__file__", None)
    if package in LIBRARIES or file is None:  # without a file are Python's core, notebooks and the interactive prompt
        return package in LIBRARIES or package in sys.stdlib_module_names
    path = Path(file)
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts) or path.is_relative_to(
        sysconfig.get_path("stdlib")
    )
