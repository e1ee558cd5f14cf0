"""Learning rates by depth: layers that come early change less than late ones, and all of them less than a new head."""

import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import nn

from lightning_leep.layers.cut import HEAD, find_head, frozen_parts, network_of, without_source
from lightning_leep.scoring.blocks import find_blocks
from lightning_leep.scoring.parameters import inside
from lightning_leep.utils.checks import check_real

#: A decay per block, or a factor for each layer by its name; None keeps the rates equal.
LearningRates: TypeAlias = float | Mapping[str, float] | None


def check_learning_rates(rates: Any) -> None:
    """Raise unless ``rates`` is a decay in (0, 1], a mapping from names to positive factors, or None."""
    if rates is None:
        return
    values, high = {"learning_rates": rates}, 1.0
    if isinstance(rates, Mapping):
        values, high = {f"learning_rates[{name!r}]": factor for name, factor in rates.items()}, 1e6
    for label, value in values.items():
        check_real(label, value, 0.0, high, missing=False)
        if value == 0:
            raise ValueError(f"`{label}` must be above 0, got 0. Freeze layers that should not be trained.")


def rate_factors(module: nn.Module, rates: LearningRates) -> dict[nn.Parameter, tuple[str, float]]:
    r"""Name of the group and factor on the learning rate of each parameter of a module.

    With a decay g the factor of the l-th of L blocks is :math:`g^{L + 1 - l}`: 1 for what follows the last block, such
    as a new head, g for the last block, less for those before it (Howard and Ruder, ULMFiT, ACL 2018, section 3.2, have
    g = 1 / 2.6; Clark et al., ELECTRA, ICLR 2020, 0.8). What is registered before a block has the block's factor: the
    stem that of the first one.

    With a mapping, a parameter takes the factor of the longest name that its own name begins with, or 1.

    Args:
        module: The module in training.
        rates: The decay, the mapping, or None for factors of 1.

    Raises:
        ValueError: If a name of the mapping fits no parameter.
    """
    parameters = dict(module.named_parameters())
    if rates is None:
        return dict.fromkeys(parameters.values(), ("all", 1.0))
    if isinstance(rates, Mapping):
        return _by_name(parameters, rates)
    module = without_source(module)
    head, network = find_head(module), network_of(module)
    order = {name: place for place, name in enumerate(dict(module.named_modules()))}
    ends = {
        block: max(place for name, place in order.items() if inside(name, block))
        for block in find_blocks(module)
        if block != head
    }
    factors = {}
    for name, parameter in parameters.items():
        if (owner := name.rpartition(".")[0]) not in order:
            continue  # of the frozen source
        place = order[owner]
        is_beside = bool(network) and not name.startswith(f"{network}.")
        if not ends or is_beside or (head is not None and place >= order[head]):
            factors[parameter] = (HEAD, 1.0)
            continue
        later = [block for block, end in ends.items() if end >= place]
        block = later[0] if later else list(ends)[-1]
        factors[parameter] = (block, float(rates) ** (len(later) or 1))
    return factors


def _by_name(
    parameters: Mapping[str, nn.Parameter], rates: Mapping[str, float]
) -> dict[nn.Parameter, tuple[str, float]]:
    unknown = [key for key in rates if not any(inside(name, key) for name in parameters)]
    if unknown:
        raise ValueError(f"`learning_rates` must name layers of the module; {unknown} fit no parameter.")
    factors = {}
    for name, parameter in parameters.items():
        key = max((key for key in rates if inside(name, key)), key=len, default="")
        factors[parameter] = (key or "all", float(rates[key]) if key else 1.0)
    return factors


def layer_groups(
    module: nn.Module, learning_rate: float, *, trained_from: str | None = None, learning_rates: LearningRates = 0.8
) -> list[dict[str, Any]]:
    """Groups of parameters for an optimizer, one for each learning rate, to use in ``configure_optimizers``.

    Args:
        module: The module in training.
        learning_rate: Rate of the head.
        trained_from: Name of the first layer that is trained, "head", or None for all: earlier parameters are in no
            group. This does not freeze them; :class:`~lightning_leep.LayerTransfer` does.
        learning_rates: Decay per block, or a factor by name (:func:`rate_factors`).

    Returns:
        ``[{"params": [...], "lr": ..., "name": ...}, ...]`` in the order of the module, without empty groups and
        without parameters that need no gradient.

    Raises:
        TypeError: If ``learning_rates`` has the wrong type.
        ValueError: If a number is out of range or a name unknown.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> [(group["name"], round(group["lr"], 3)) for group in layer_groups(network, 0.1, learning_rates=0.5)]
        [('1', 0.025), ('3', 0.05), ('head', 0.1)]
    """
    check_real("learning_rate", learning_rate, 0.0, sys.float_info.max, missing=False)
    check_learning_rates(learning_rates)
    modules, parameters = ([], []) if trained_from is None else frozen_parts(module, trained_from)
    frozen = {*parameters, *(p for part in modules for p in part.parameters())}
    groups: dict[str, dict[str, Any]] = {}
    for parameter, (name, factor) in rate_factors(module, learning_rates).items():
        if parameter.requires_grad and parameter not in frozen:
            group = groups.setdefault(name, {"params": [], "lr": learning_rate * factor, "name": name})
            group["params"].append(parameter)
    return list(groups.values())
