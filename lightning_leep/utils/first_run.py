"""See which modules run, whoever calls them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn


def on_first_run(action: Callable[[nn.Module], None]) -> Callable[[], AbstractContextManager[None]]:
    """A context, for use any number of times, in which an action is called with each module before it first runs.

    A module counts as run when it is called, not when only its ``forward`` or another method is.
    """
    seen: dict[int, nn.Module] = {}  # the modules as well: an id could be used again

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not torch.compiler.is_compiling() and id(module) not in seen:
            seen[id(module)] = module
            action(module)

    @contextmanager
    def context() -> Iterator[None]:
        handle = nn.modules.module.register_module_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    return context
