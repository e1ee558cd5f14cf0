"""Where a network is cut: what is registered before a layer stays as it is, the rest is trained."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_leep.scoring.blocks import find_blocks

#: Stands for the network's last layer, the head, where the name of a layer is wanted.
HEAD = "head"


def without_source(module: nn.Module) -> nn.Module:
    """The module without a frozen copy of its network: the source, which a LightningModule may keep as an attribute.

    It differs from the network in the last layer at most. Names stay as they are.
    """
    bodies = {name: _all_but_last(child) for name, child in module.named_children()}
    trained = {name for name, child in module.named_children() if any(p.requires_grad for p in child.parameters())}
    found = [bodies[name] for name in trained]  # more than one alike are blocks
    copies = {name for name in set(bodies) - trained if bodies[name] and found.count(bodies[name]) == 1}
    if not copies:
        return module
    rest = nn.Module()
    for name, child in module.named_children():
        if name not in copies:
            rest.add_module(name, child)
    return rest


def _all_but_last(module: nn.Module) -> list[tuple[str, torch.Size]]:
    """Names and shapes of all parameters but those of the last layer."""
    shapes = [(name, p.shape) for name, p in module.named_parameters() if not is_lazy(p)]
    return [shape for shape in shapes if shape[0].rpartition(".")[0] != shapes[-1][0].rpartition(".")[0]]


def network_of(module: nn.Module) -> str:
    """Name of the part of a module that holds all blocks: one of its attributes, or "" for the module itself.

    What lies beside it (a head apart, losses) is never frozen. Beside a plain container of blocks lies the stem.
    """
    firsts = {name.partition(".")[0] for name in find_blocks(module)}
    first = firsts.pop() if len(firsts) == 1 else ""
    return "" if isinstance(module.get_submodule(first), nn.Sequential | nn.ModuleList | nn.ModuleDict) else first


def find_layer(module: nn.Module, name: str) -> str:
    """Full name of the layer that ``name`` means: its name in ``module``, or in the network that holds the blocks.

    The names in a report's table of layers begin at the source. ``ValueError`` if no layer or more than one is meant.
    """
    names = [full for full, _ in module.named_modules() if full]
    if name in names:
        return name
    found = [full for full in names if full.endswith(f".{name}")]
    if len(found) != 1:
        problem = f"fits {' and '.join(found[:3])}" if found else "is not there"
        raise ValueError(
            f"`trained_from` must name a layer of the module, or be {HEAD!r}; {name!r} {problem}. "
            f"Its blocks: {', '.join(find_blocks(module))}."
        )
    return found[0]


def frozen_parts(module: nn.Module, trained_from: str) -> tuple[list[nn.Module], list[nn.Parameter]]:
    """What lies before a layer as it is registered: whole modules, and single parameters of those that hold it."""
    module = without_source(module)
    network = network_of(module)
    layer = find_head(module) if trained_from == HEAD else find_layer(module, trained_from)
    if layer is None and not network:
        raise ValueError("`trained_from` cannot be 'head': no layer follows the last block of the module.")
    if layer is None or (network and not layer.startswith(f"{network}.")):  # the head lies beside the network
        return [module.get_submodule(network)], []
    modules: list[nn.Module] = []
    parameters: list[nn.Parameter] = []
    holder = module.get_submodule(network)
    for step in layer.removeprefix(f"{network}.").split("."):
        if holder is not module:
            parameters.extend(holder.parameters(recurse=False))
        for name, child in holder.named_children():
            if name == step:
                break
            modules.append(child)
        holder = holder.get_submodule(step)
    return modules, parameters


def find_head(module: nn.Module) -> str | None:
    """Name of the first layer with a weight matrix behind the last block; None if there is none.

    ``ValueError`` if the module has no blocks.
    """
    blocks = find_blocks(module)
    if not blocks:
        raise ValueError("A network with at least one layer is needed to find its head, found none in the module.")
    layers = [
        name for name, layer in module.named_modules() if any(p.ndim > 1 for p in layer.parameters(recurse=False))
    ]
    if len(blocks) > 1 and any(name.startswith(f"{blocks[-1]}.") for name in layers):
        last = max(i for i, name in enumerate(layers) if name.startswith(f"{blocks[-1]}."))
        return layers[last + 1] if last + 1 < len(layers) else None
    return layers[-1]  # a plain network, whose last layer is its head
