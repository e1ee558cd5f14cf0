"""Run modules that belong to the user, and leave them as they were."""

import copy
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_leep.utils.first_run import on_first_run

GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)
CONTAINERS = (list, deque, dict, OrderedDict, defaultdict, Counter)
#: An object with a part from one of these works together with another thread or process, for which a copy would wait.
CONCURRENT = {"_queue", "_thread", "asyncio", "multiprocessing", "queue", "socket", "subprocess", "threading"}
#: Packages whose objects are not copied but those named above: a Trainer holds all of a run.
LIBRARIES = {"lightning", "lightning_fabric", "lightning_leep", "pytorch_lightning", "torch"}
#: Items of a longer container, and what lies deeper than this, are shared.
MANY, DEEP = 10_000, 20
#: Share of a GPU's free memory that copies of parameters may take.
MEMORY_SHARE = 0.5


class LentCopies:
    """Copies that modules work on while a source runs on ``device``; then they have their own again, untouched.

    Modules are in evaluation mode meanwhile, and a ``LightningModule`` logs nothing. Copied are all attributes of a
    module, its submodules and the modules among these attributes; ``docs/callback.md`` lists what this cannot protect.

    The other tensors of a module that shares some with the one in training, ``trained``, get the floating-point type of
    these, since the Trainer's precision may have converted the shared ones alone.
    """

    def __init__(self, device: torch.device, trained: nn.Module) -> None:
        self.device = device
        self._of_trained = {id(tensor) for tensor in _tensors(trained)}
        self._copies: dict[int, Any] = {}  # by the id of the original; a module stands for itself
        self._own: list[tuple[nn.Module, dict[str, Any]]] = []
        #: The context in which the source is called: other modules that run there are lent copies first.
        self.running = on_first_run(self._run)

    def lend(self, module: nn.Module) -> None:
        """Give copies to a module and its submodules, as far as they have none."""
        parts = [part for part in module.modules() if id(part) not in self._copies]
        parts = [part for part in parts if not isinstance(part, torch.jit.ScriptModule)]
        self._copies.update((id(part), part) for part in parts)
        self._copy_tensors(module, parts)
        for part in parts:
            own = part.__dict__
            self._own.append((part, dict(own)))
            own.update({name: self._copy(value) for name, value in list(own.items())}, training=False)
            if any(cls.__name__ == "LightningModule" for cls in type(part).__mro__):
                own["log"] = lambda *args, **kwargs: None  # what is computed for scoring is not a result of training

    def give_back(self) -> None:
        """Let all modules have their own again."""
        for module, own in self._own:
            module.__dict__.clear()
            module.__dict__.update(own)

    def _run(self, module: nn.Module) -> None:
        if any(is_lazy(tensor) for tensor in _tensors(module, recurse=False)):
            raise ValueError(
                f"The source runs {type(module).__name__}, an uninitialised layer, which has learnt nothing. "
                "Run the model on a batch before it is trained, or pass another `source=`."
            )
        self.lend(module)

    def _copy_tensors(self, module: nn.Module, parts: list[nn.Module]) -> None:
        dtype = next((t.dtype for t in _tensors(module) if id(t) in self._of_trained and t.is_floating_point()), None)
        tensors = {id(tensor): tensor for part in parts for tensor in _tensors(part, recurse=False)}
        # Of other types are parts of a tensor that is spread over processes, quantised and uninitialised ones.
        plain = [t for t in tensors.values() if type(t) in (Tensor, nn.Parameter) and not t.is_meta]
        if self.device.type == "cuda":
            in_place = [p for p in plain if isinstance(p, nn.Parameter) and p.device == self.device]
            free = torch.cuda.mem_get_info(self.device)[0]
            if sum(p.numel() * p.element_size() for p in in_place) > MEMORY_SHARE * free:
                self._copies.update((id(p), p) for p in in_place)
        for tensor in [tensor for tensor in plain if id(tensor) not in self._copies]:
            if id(tensor) in self._of_trained:  # where its strategy has put it
                new = tensor.detach().clone()
            else:
                new = tensor.detach().to(self.device, dtype if tensor.is_floating_point() else None, copy=True)
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, tensor.requires_grad)
            new.__dict__.update(tensor.__dict__)
            self._copies[id(tensor)] = new
            if id(tensor) in self._of_trained:
                self._of_trained.add(id(new))

    def _copy(self, value: Any, depth: int = 0) -> Any:
        cls = type(value)  # not `isinstance`: it asks the object for its class, and a proxy may do anything then
        if id(value) in self._copies or depth > DEEP:
            return self._copies.get(id(value), value)
        if issubclass(cls, nn.Module):
            self.lend(value)
            return value
        if cls is tuple:
            return value if len(value) > MANY else tuple(self._copy(item, depth + 1) for item in value)
        if cls is Tensor:
            new: Any = value.detach().clone().requires_grad_(value.requires_grad)
        elif cls is torch.Generator:
            new = torch.Generator(value.device)
            new.set_state(value.get_state())
        elif cls in GENERATORS:
            new = copy.deepcopy(value)
        elif cls in (*CONTAINERS, np.ndarray, set) or _is_plain(value):
            try:
                new = copy.copy(value)
            except Exception:  # of a class that cannot be made without arguments, say
                return value
        else:
            return value
        self._copies[id(value)] = new
        if cls in CONTAINERS or _is_plain(value):
            places = new if cls in CONTAINERS else vars(new)
            keys = list(places) if isinstance(places, dict) else range(len(places))
            for key in keys if len(places) <= MANY else ():
                places[key] = self._copy(places[key], depth + 1)
        return new


def shares_weights(module: nn.Module, other: nn.Module) -> bool:
    """Whether a parameter or buffer belongs to both modules."""
    tensors = {id(tensor) for tensor in _tensors(other)}
    return any(id(tensor) in tensors for tensor in _tensors(module))


def _tensors(module: nn.Module, recurse: bool = True) -> Iterator[Tensor]:
    return chain(module.parameters(recurse), module.buffers(recurse))


def _is_plain(value: Any) -> bool:
    """Whether an object is what its attributes are, and nothing works on them but whoever has the object."""
    cls = type(value)
    if not cls.__dictoffset__ or issubclass(cls, type) or _package(cls) in sys.stdlib_module_names:
        return False
    usual = ("__getattribute__", "__getstate__", "__reduce__", "__reduce_ex__")
    return (
        all(getattr(cls, name) is getattr(object, name) for name in usual)
        and not any(hasattr(cls, name) for name in ("__copy__", "__del__", "__setstate__"))
        and (CONCURRENT | LIBRARIES).isdisjoint(map(_package, cls.__mro__))
        and CONCURRENT.isdisjoint(_package(type(part)) for part in vars(value).values())
    )


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]
