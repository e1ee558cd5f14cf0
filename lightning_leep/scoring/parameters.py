"""How many parameters a source has, and which of its layers they belong to."""

from collections.abc import Collection, Iterable, Sequence

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_leep.records.layers import HEAD_INPUT, STEM


def inside(name: str, module: str) -> bool:
    """Whether a name is that of a module or of something in it."""
    return f"{name}.".startswith(f"{module}.")


def numbers(parameters: Iterable[Tensor]) -> int:
    """How many numbers the parameters hold; lazy ones without a shape count as 0."""
    return sum(p.numel() for p in parameters if not is_lazy(p))


def layer_parameters(
    source: nn.Module, layers: Sequence[str], modules: Collection[str], head: str | None
) -> dict[str, int]:
    """Count the parameters of each layer; arguments as in :func:`layers_of_parameters`."""
    found = dict.fromkeys(layers, 0)
    for name, layer in layers_of_parameters(source, layers, modules, head).items():
        found[layer] += numbers([source.get_parameter(name)])
    return found


def layers_of_parameters(
    source: nn.Module, layers: Sequence[str], modules: Collection[str], head: str | None
) -> dict[str, str]:
    """Find the layer of each parameter: the one that holds it, or the one before which it is registered.

    A parameter of several layers belongs to the one that is done first. What is registered before the first of
    ``modules`` belongs to the stem if that is among the layers, and what follows the last one to the head's input. What
    belongs to no layer, as the head itself (names with " + " between them), is missing. ``layers`` are in the order in
    which they are done; of these ``modules`` are submodules, the others the stem, the head's input, or another run.
    """
    found, heads = {}, [] if head is None else head.split(" + ")
    places = {name: place for place, (name, _) in enumerate(source.named_modules(remove_duplicate=False))}
    in_order = sorted((name for name in layers if name in modules), key=places.__getitem__)
    for name, _ in source.named_parameters():
        owner = name.rpartition(".")[0]
        layer = next((layer for layer in layers if layer in modules and name.startswith(f"{layer}.")), None)
        if layer is None and not any(inside(owner, part) for part in heads):
            later = [layer for layer in in_order if places[layer] > places[owner]]
            if later == in_order and STEM in layers:
                layer = STEM
            elif later:  # the layer that is done first of the next one and those inside it
                layer = next(name for name in layers if inside(name, later[0]))
            else:
                layer = HEAD_INPUT
        if layer in layers:
            found[name] = str(layer)
    return found
