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


def find_transferred(network: nn.Module, source: nn.Module) -> tuple[Copies, ...]:
    """Find the tensors of a network that came from the source, another module, before any step has changed them.

    They are in the network's order, each as the names of all its copies. Equal tensors whose values are all the same do
    not count: fresh biases and normalisations look like that everywhere. If one parameter of a layer was transferred,
    the layer's others were too. A copy of the whole source that stands beside layers taken from it adds nothing.
    """
    equal = _EqualParameters(source)
    copies: defaultdict[int, list[str]] = defaultdict(list)
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        if (index := equal.find(parameter)) is not None:
            copies[index].append(name)
    whole = whole_copies(network, source)
    used = {i: names for i, names in copies.items() if any(not within(name, whole) for name in names)}
    groups = [tuple(names) for names in (used or copies).values()]
    found = {name for group in groups for name in group}
    for name in parameters:
        owner = name.rpartition(".")[0]
        layer = network.get_submodule(owner)
        if name in found or any(layer.children()) or (used and within(name, whole)):
            continue
        if any(f"{owner}.{sibling}" in found for sibling, _ in layer.named_parameters()):
            groups.append((name,))
    order = {name: place for place, name in enumerate(parameters)}
    share = numbers(parameters[group[0]] for group in groups) / max(numbers(network.parameters()), 1)
    return tuple(sorted(groups, key=lambda group: order[group[0]])) if share >= LEAST_SHARE else ()


def source_names(transferred: Iterable[Copies], network: nn.Module, source: nn.Module) -> tuple[str, ...]:
    """Return what the parameters that :func:`find_transferred` found are called in the source, before training."""
    equal, names = _EqualParameters(source), [name for name, _ in source.named_parameters()]
    groups = [group[0] for group in transferred]
    found = [equal.find(network.get_parameter(name)) for name in groups]
    steps = [name.rpartition(".") for name in groups]
    # Of a layer it is enough to find one parameter.
    owners = {owner: names[i].rpartition(".")[0] for (owner, *_), i in zip(steps, found, strict=True) if i is not None}
    return tuple(f"{owners.get(owner, '')}.{leaf}".lstrip(".") for owner, _, leaf in steps)


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
        self.parameters = list(module.parameters())
        self.identities = {id(p): i for i, p in enumerate(self.parameters)}
        self.of_shape: defaultdict[torch.Size, list[int]] = defaultdict(list)
        for index, parameter in enumerate(self.parameters):
            if _comparable(parameter):
                self.of_shape[parameter.shape].append(index)

    def find(self, parameter: Tensor) -> int | None:
        """Its index among the module's parameters; None if it is not there."""
        if id(parameter) in self.identities:
            return self.identities[id(parameter)]
        if not _comparable(parameter) or not parameter.numel():
            return None
        values = parameter.detach().flatten()
        if bool((values == values[0]).all()):
            return None
        for index in self.of_shape[parameter.shape]:
            original = self.parameters[index].detach().flatten()
            # The Trainer's precision may have rounded the copy, or moved it: most originals differ in the first values.
            if all(torch.equal(original[:n].to(values), values[:n]) for n in (SAMPLE_SIZE, None)):
                return index
        return None


def _comparable(parameter: Tensor) -> bool:
    # Only all processes together could read a tensor that is spread over them.
    return not is_lazy(parameter) and type(parameter.data) is Tensor and parameter.device.type != "meta"
