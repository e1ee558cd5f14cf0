"""Which modules of a network are its blocks, told by how it is built: no library's names are known here."""

from collections import Counter

import torch
from torch import nn
from torch.nn.parameter import is_lazy

Named = tuple[str, nn.Module]

#: Where torch keeps the modules that, in a plain sequence, belong to the layer before them.
FOLLOWERS = {
    f"torch.nn.modules.{file}" for file in ("activation", "batchnorm", "dropout", "instancenorm", "normalization")
}


def find_blocks(network: nn.Module) -> list[str]:
    """Names of the blocks of a network, in the order in which they are registered.

    A *layer* is a module with one weight of two or more dimensions, depthwise convolutions apart: a convolution with
    its normalisation, a linear layer, a recurrent one. A *block* is a module of a class of its own that has two or
    more: a residual block, a transformer block, an Inception module, embeddings. Looked through are

    - plain containers (``nn.Sequential``, ``nn.ModuleList``, ``nn.ModuleDict``);
    - of modules of the same class those that are little more than a row of blocks of one class: the stages of Swin,
      ConvNeXt or RegNet;
    - any other module if blocks of one class stand side by side somewhere in it, or it has most of the network's
      layers: encoders, backbones, wrappers.

    A network with fewer than two blocks is a plain one: there every layer counts, and is named after the last of the
    normalisation, activation and dropout that follow it in a ``nn.Sequential``. TorchScript modules are passed over.
    """
    finder = _Finder(network)
    blocks = [name for name, module in finder.expand(network, "", in_chain=False) if finder.layers(module) > 1]
    return blocks if len(blocks) > 1 else finder.plain_layers(network, "")


class _Finder:
    def __init__(self, network: nn.Module) -> None:
        self.num_layers: dict[nn.Module, int] = {}
        self.most = self.layers(network) / 2

    def layers(self, module: nn.Module) -> int:
        """Layers in a module."""
        if module not in self.num_layers:
            below = sum(map(self.layers, module.children())) + _has_weight(module)
            self.num_layers[module] = 0 if isinstance(module, torch.jit.ScriptModule) else below
        return self.num_layers[module]

    def expand(self, module: nn.Module, name: str, in_chain: bool) -> list[Named]:
        """Blocks and single layers of a module that is looked through, itself perhaps in a row of its like."""
        members = self.members(module, name)
        kinds = self.kinds(members)
        found: list[Named] = []
        for member_name, member in members:
            chain = in_chain or kinds[type(member)] > 1
            if self.layers(member) > 1 and (self.is_stage(member) if chain else self.is_wrapper(member)):
                found += self.expand(member, member_name, chain)
            else:
                found.append((member_name, member))
        return found

    def members(self, module: nn.Module, name: str = "") -> list[Named]:
        """The children that have layers; in place of plain containers what they hold."""
        found: list[Named] = []
        for child_name, child in self.children(module, name):
            found += self.members(child, child_name) if _is_container(child) else [(child_name, child)]
        return found

    def children(self, module: nn.Module, name: str = "") -> list[Named]:
        """The children that have layers."""
        prefix = f"{name}." if name else ""
        return [(prefix + child_name, child) for child_name, child in module.named_children() if self.layers(child)]

    def kinds(self, members: list[Named]) -> Counter[type]:
        """How many blocks of each class there are."""
        return Counter(type(member) for _, member in members if self.layers(member) > 1)

    def is_stage(self, module: nn.Module) -> bool:
        """Whether a module is little more than a row of blocks: of its own, or in one of its plain containers."""
        if isinstance(module, nn.ModuleList | nn.ModuleDict):
            return False  # it runs itself: a dense block, whose output holds all of them
        rows = [module, *(child for _, child in self.children(module) if _is_container(child))]
        return any(self.is_row(row) and self.layers(row) > self.layers(module) / 2 for row in rows)

    def is_row(self, module: nn.Module) -> bool:
        """Whether a module's children are blocks of one class; in a ``nn.Sequential`` others may stand between them."""
        children = list(module.named_children())
        if isinstance(module, nn.Sequential):
            return max(self.kinds(children).values(), default=0) > 1
        kinds = self.kinds([(name, child) for name, child in children if not _is_container(child)])
        return max(kinds.values(), default=0) == len(children) > 1

    def is_wrapper(self, module: nn.Module) -> bool:
        """Whether blocks of one class stand side by side in a module, or it has most of the layers."""
        parts = (part for part in module.modules() if not _is_container(part))
        return self.layers(module) > self.most or any(
            max(self.kinds(self.members(part)).values(), default=0) > 1 for part in parts
        )

    def plain_layers(self, module: nn.Module, name: str) -> list[str]:
        """Layers of a plain network or of a part of it; a block is taken whole."""
        found: list[str] = []
        follows = False
        for child_name, child in module.named_children():
            full_name = f"{name}.{child_name}" if name else child_name
            if not self.layers(child):
                if follows and isinstance(module, nn.Sequential) and _is_follower(child):
                    found[-1] = full_name
                else:
                    follows = False
                continue
            look_through = _is_container(child) or self.layers(child) > self.most
            follows = self.layers(child) == 1 or not look_through
            found += [full_name] if follows else self.plain_layers(child, full_name)
        return found


def _has_weight(module: nn.Module) -> bool:
    # Depthwise, a convolution is half of a separable one.
    depthwise = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and 1 < module.groups == module.in_channels
    return not depthwise and any(is_lazy(p) or p.ndim > 1 for p in module.parameters(recurse=False))


def _is_container(module: nn.Module) -> bool:
    silent = type(module).forward is nn.Module.forward
    return isinstance(module, nn.Sequential) or (isinstance(module, nn.ModuleList | nn.ModuleDict) and silent)


def _is_follower(module: nn.Module) -> bool:
    return any(base.__module__ in FOLLOWERS for base in type(module).__mro__)
