"""Which parameters of a network came from the source model."""

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_leep.scoring.parameters import numbers

#: How many values of a tensor are compared before all of them are.
SAMPLE_SIZE = 32
#: Below this share of the network's numbers nothing counts as transferred: tables of positions are equal by formula.
LEAST_SHARE = 0.01

#: Names of the parameters of a network that held the same tensor before training.
Copies: TypeAlias = tuple[str, ...]


def find_transferred(network: nn.Module, source: nn.Module) -> dict[Copies, str]:
    """Find the tensors of a network that came from the source, another module, and what they are called there.

    They are in the network's order, before any step has changed them. Equal tensors whose values are all the same do
    not count: fresh biases and normalisations look like that everywhere. If one parameter of a layer was transferred,
    the layer's others were too. A copy of the whole source that stands beside layers taken from it adds nothing.
    """
    equal = _EqualParameters(source)
    copies: defaultdict[str, list[str]] = defaultdict(list)
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        if (original := equal.find(parameter)) is not None:
            copies[original].append(name)
    whole = whole_copies(network, source)
    used = {original: names for original, names in copies.items() if any(not within(name, whole) for name in names)}
    found = {tuple(names): original for original, names in (used or copies).items()}
    layers = {_layer(name): _layer(original) for names, original in found.items() for name in names}
    known = {name for names in found for name in names}
    for name in parameters:
        layer, _, leaf = name.rpartition(".")
        if name in known or layer not in layers or (used and within(name, whole)):
            continue
        if not any(network.get_submodule(layer).children()):
            found[(name,)] = f"{layers[layer]}.{leaf}".lstrip(".")
    order = {name: place for place, name in enumerate(parameters)}
    share = numbers(parameters[names[0]] for names in found) / max(numbers(network.parameters()), 1)
    return dict(sorted(found.items(), key=lambda item: order[item[0][0]])) if share >= LEAST_SHARE else {}


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def whole_copies(network: nn.Module, source: nn.Module) -> list[str]:
    """Names of the submodules that are the source, or have parameters of the same names and shapes."""
    wanted = _shapes(source)
    return [
        name
        for name, module in network.named_modules(remove_duplicate=False)
        if name and (module is source or _shapes(module) == wanted)
    ]


def within(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter belongs to one of the modules, by their names."""
    return any(name.startswith(f"{module}.") for module in modules)


def _shapes(module: nn.Module) -> list[tuple[str, torch.Size | None]]:
    return [(name, None if is_lazy(p) else p.shape) for name, p in module.named_parameters()]


class _EqualParameters:
    """Finds the parameter of a module that is, or equals, a given one."""

    def __init__(self, module: nn.Module) -> None:
        self.names = {id(p): name for name, p in module.named_parameters()}
        self.of_shape: defaultdict[torch.Size, list[tuple[str, Tensor]]] = defaultdict(list)
        for name, parameter in module.named_parameters():
            if _comparable(parameter):
                self.of_shape[parameter.shape].append((name, parameter.detach().flatten()))

    def find(self, parameter: Tensor) -> str | None:
        """Its name in the module; None if it is not there."""
        if id(parameter) in self.names:
            return self.names[id(parameter)]
        if not _comparable(parameter) or not parameter.numel():
            return None
        values = parameter.detach().flatten()
        sample = _sample(values)
        if bool((sample == sample[0]).all()):
            return None
        for name, original in self.of_shape[parameter.shape]:
            # The Trainer's precision may have rounded the copy, or moved it.
            if torch.equal(_sample(original).to(sample), sample) and torch.equal(original.to(values), values):
                return name
        return None


def _sample(values: Tensor) -> Tensor:
    return values[:: max(1, len(values) // SAMPLE_SIZE)]


def _comparable(parameter: Tensor) -> bool:
    # Only all processes together could read a tensor that is spread over them.
    return not is_lazy(parameter) and type(parameter.data) is Tensor and parameter.device.type != "meta"
