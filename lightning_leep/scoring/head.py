"""Penultimate features of a source model: the input of its last layer, taken while the model runs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

#: Last parts of the names under which common models keep their classifier or its last layer.
HEAD_NAMES = ("fc", "classifier", "head", "linear")


class LayerInput(NamedTuple):
    """What one layer was given: ``[N, d]``, ``[N, ..., d]`` or ``[N, d, ...]``."""

    name: str
    layer: nn.Module
    value: Tensor


class HeadInput:
    """What went into the head when the source last ran.

    Args:
        layers: All submodules of the source by name.
        head: Name of the head that the user asked for; None to find it.
    """

    def __init__(self, layers: Mapping[str, nn.Module], head: str | None = None) -> None:
        self.layers = dict(layers)
        self.name: str | None = None  #: of the head that features came from; None before the first ones
        self.common = {} if head is not None else _common_layers(self.layers)  #: by the last part of their names
        self._head = head
        self._runs: Counter[str] = Counter()
        self._sizes: dict[str, tuple[int, ...]] = {}  # of each output, those that may be the number of classes
        self._common: dict[str, LayerInput] = {}
        self._last: LayerInput | None = None  # of the linear layers or, if the user named a head, of that one

    def record_input(self, name: str, value: Tensor) -> None:
        """Remember the input of a layer that runs."""
        layer = self.layers[name]
        # A linear layer does not change its input; another layer may work in place.
        value = value.detach() if isinstance(layer, nn.Linear) else value.detach().clone()
        run = LayerInput(name, layer, value)
        self._runs[name] += 1
        if name in self.common.values():
            self._common[name] = run
        if isinstance(layer, nn.Linear):
            self._sizes[name] = (layer.out_features,)
        if self._head is not None or isinstance(layer, nn.Linear):
            self._last = run

    def record_output(self, name: str, value: Tensor) -> None:
        """Remember which sizes of an output ``[N, Z, ...]`` or ``[N, ..., Z]`` may be the number of classes."""
        self._sizes[name] = (value.shape[1], value.shape[-1]) if value.ndim > 1 else ()

    def take(self, preds: Tensor, target: Tensor) -> Tensor | None:
        """Return the features if they have one row for each label, and forget them.

        Args:
            preds: ``[N, Z]`` or ``[N, Z, d1, ...]``, what the source returned.
            target: ``[N]`` or ``[N, d1, ...]`` labels.

        Returns:
            ``[N, d]`` or ``[N, d, d1, ...]``. A copy: a view would keep its whole base alive (all tokens, say), and a
            model may reuse its memory. None without a head that is known to make the outputs, or if the head ran more
            than once, since each run has its own features.

        Raises:
            ValueError: If the user named the head and it did not run, ran more than once, or was given something else.
        """
        head = self._last if self._head is not None else self._choose(preds.shape[1])
        again = head is not None and self._runs[head.name] > 1
        features = None if head is None or again else _rows_for_labels(head, target)
        if features is None and self._head is not None:
            if head is None:
                found = "did not run (if torch.compile compiled the source and it ran before, nothing in it is seen)"
            elif again:
                found = f"ran {self._runs[head.name]} times for one batch"
            else:
                found = f"was given {head.value.dtype} of shape {list(head.value.shape)}"
            raise ValueError(
                f"`head` must name a layer whose input has one row of features for each of the {list(target.shape)} "
                f"labels, but {self._head!r} {found}."
            )
        self._common, self._last = {}, None
        self._runs.clear()
        self._sizes.clear()
        if head is None or features is None or self.name not in (None, head.name):
            return None  # features of another layer than before do not count
        self.name = head.name
        return features.clone()

    def _choose(self, num_source_classes: int) -> LayerInput | None:
        """Return the layer that makes the source's outputs; None if names and sizes do not tell."""
        common = [run for run in self._common.values() if num_source_classes in self._sizes.get(run.name, ())]
        linear = [run for run in common if isinstance(run.layer, nn.Linear)]
        if linear:
            return linear[-1]  # to run
        block = common[-1] if common else None
        last = self._last
        if last is None or num_source_classes not in self._sizes.get(last.name, ()) or self._is_adapter(last.name):
            return block
        # A linear layer elsewhere, such as a gate, does not stand for a classifier that is not linear.
        return last if block is None or last.name.startswith(f"{block.name}.") else block

    def _is_adapter(self, name: str) -> bool:
        """Whether another linear layer of the same block has as many outputs, to be added to these (LoRA)."""
        block = name.rpartition(".")[0]
        while block and isinstance(self.layers[block], nn.ModuleDict | nn.ModuleList):  # these never run themselves
            block = block.rpartition(".")[0]
        if isinstance(self.layers[block], nn.Sequential):
            return False  # its layers run one after the other
        return any(  # the source as a whole does not count as a block: its layers mostly run one after the other
            other != name and other.startswith(f"{block}.") and sizes == self._sizes[name]
            for other, sizes in self._sizes.items()
            if isinstance(self.layers[other], nn.Linear)
        )


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def _common_layers(layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return the module of each common name: the least deep one and, of several, the last."""
    found: dict[str, str] = {}
    for name in layers:
        part = _last_part(name)
        if part in HEAD_NAMES and (part not in found or name.count(".") <= found[part].count(".")):
            found[part] = name
    return found


def _rows_for_labels(head: LayerInput, target: Tensor) -> Tensor | None:
    value, is_linear = head.value, isinstance(head.layer, nn.Linear)
    if not is_linear:
        while value.ndim > target.ndim + 1 and value.shape[-1] == 1:
            value = value.squeeze(-1)  # pooled for a 1 x 1 convolution: [N, d, 1, 1] -> [N, d]
    if not value.is_floating_point() or value.ndim != target.ndim + 1:
        return None
    # Convolutions have their features in dimension 1, linear layers in the last one, other layers in either.
    if not isinstance(head.layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and value.shape[:-1] == target.shape:
        return value.movedim(-1, 1)  # [N, ..., d] -> [N, d, ...]
    return value if not is_linear and value.shape[:1] + value.shape[2:] == target.shape else None


@contextmanager
def capture_head_input(module: nn.Module | None, head: str | None = None) -> Iterator[HeadInput]:
    """Record the input of the source's head at every forward pass within the context.

    Without ``head``, the head is the first of these that has as many outputs as the source:

    1. the linear layer whose name ends in ``fc``, ``classifier``, ``head`` or ``linear``: the least deep one of each
       name, and of these the last to run;
    2. the linear layer that runs last. If a module with such a name has as many outputs too, the layer must be inside
       it. It does not count if another linear layer of the same submodule has as many outputs, since the two are then
       added (LoRA);
    3. the module with such a name, whatever its type: a convolution, or a linear layer with a LoRA adapter.

    Args:
        module: The source; None (a plain callable) records nothing.
        head: Name of the head, as in ``module.get_submodule``; None to find it.

    Raises:
        ValueError: If ``module`` has no submodule ``head``.
    """
    # A module may have several names, and a user may give any of them.
    named = () if module is None else module.named_modules(remove_duplicate=head is None)
    layers = {name: layer for name, layer in named if not isinstance(layer, torch.jit.ScriptModule)}  # takes no hooks
    linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    if head is not None and head not in layers:
        raise ValueError(f"`head` must name a submodule of the source, got {head!r}. Its linear layers: {linear}.")
    captured = HeadInput(layers, head)

    def watch_input(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            if given is not None:
                captured.record_input(name, given)

        return layers[name].register_forward_pre_hook(hook, with_kwargs=True)

    def watch_output(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                captured.record_output(name, output)

        return layers[name].register_forward_hook(hook)

    blocks = [name for name in captured.common.values() if name not in linear]
    handles: list[Any] = []
    try:
        handles.extend(watch_input(name) for name in ([*linear, *blocks] if head is None else [head]))
        handles.extend(watch_output(name) for name in blocks)
        yield captured
    finally:
        for handle in handles:
            handle.remove()
