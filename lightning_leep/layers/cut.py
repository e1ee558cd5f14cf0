"""Where a network is cut: what is registered before a layer stays as it is, the rest is trained."""

from torch import nn

from lightning_leep.scoring.blocks import find_blocks

#: Stands for the network's last layer, the head, where the name of a layer is wanted.
HEAD = "head"


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
