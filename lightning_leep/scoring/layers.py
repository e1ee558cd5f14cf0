"""Outputs of a source's layers, pooled to one row an image or text while the model runs."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_leep.records.layers import HEAD_INPUT, STEM
from lightning_leep.scoring.blocks import find_blocks
from lightning_leep.scoring.parameters import inside, layer_parameters
from lightning_leep.scoring.pooling import Layout, Pooled, Pooling, TokenReader, layout_of, pool
from lightning_leep.utils.checks import error_text


class LayerOutputs:
    """What the layers returned when the source last ran; of a function, whose layers are unknown, nothing.

    ``layers`` is "auto" for the stem and the blocks, or names of submodules, with ``STEM`` perhaps among them.
    """

    def __init__(self, source: nn.Module | None, layers: str | Sequence[str], pooling: Pooling = "auto") -> None:
        self.source = source
        self.pooling = pooling
        self.left_out: dict[str, str] = {}  #: why, by name: the end of a sentence that begins with the name
        self.blocks = [] if source is None else find_blocks(source)
        self.named = () if isinstance(layers, str) else tuple(layers)
        self.has_stem = isinstance(layers, str) or STEM in layers
        self.modules = {} if source is None else self._find(source)
        #: What the source's head reads of a sequence, known after the first batch.
        self.reader = TokenReader(source if self.modules and pooling == "auto" else None)
        self._pooled: dict[str, Pooled] = {}
        self._layouts: dict[nn.Module, Layout] = {}
        self._runs: Counter[str] = Counter()
        self._inputs: set[int] = set()
        self._num_rows = 0
        self._mask: Tensor | None = None

    def _find(self, source: nn.Module) -> dict[str, nn.Module]:
        known = dict(source.named_modules(remove_duplicate=False))
        unknown = [name for name in self.named if name != STEM and not (name and name in known)]
        if unknown:
            raise ValueError(
                f"`layers` must name submodules of the source, got {', '.join(map(repr, unknown))}. "
                f"Its blocks: {', '.join([STEM, *self.blocks])}."
            )
        names = self.named or self.blocks
        found = {name: known[name] for name in names if name in known}  # a submodule may be named like the stem
        return {name: layer for name, layer in found.items() if not isinstance(layer, torch.jit.ScriptModule)}

    def begin(self, inputs: Any, target: Any) -> None:
        """Note the inputs and the labels, one an image or text, of the batch that the source is called with next."""
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        self._mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        self._num_rows = len(target) if isinstance(target, Tensor) and target.ndim == 1 else 0
        # A mapping that is not a plain dictionary (of a tokenizer, say) is a leaf for torch.
        leaves = tree_leaves(dict(inputs) if isinstance(inputs, Mapping) else inputs)
        self._inputs = {leaf.data_ptr() for leaf in leaves if isinstance(leaf, Tensor)}
        self._pooled = {}
        self._runs.clear()
        self.reader.begin(self._num_rows, self._mask)

    def record_stem(self, layer: nn.Module, values: Sequence[Any]) -> None:
        """Keep the input of the first block that runs, unless it is that of the source."""
        if self._num_rows and not self._runs[STEM]:
            value = next((value for value in values if isinstance(value, Tensor)), None)
            self._runs[STEM] += 1
            if value is not None and value.is_floating_point() and value.data_ptr() not in self._inputs:
                self._keep(STEM, layer, value)

    def record_output(self, name: str, layer: nn.Module, output: Any) -> None:
        """Keep what a layer returns; if it runs again, each output under a name of its own."""
        if not self._num_rows:
            return
        self._runs[name] += 1
        self._keep(name if self._runs[name] == 1 else f"{name} (run {self._runs[name]})", layer, output)

    def _keep(self, name: str, layer: nn.Module, output: Any) -> None:
        try:
            if callable(self.pooling):
                self._pooled[name] = Pooled(_one_row_each(self.pooling(output), self._num_rows))
                return
            if layer not in self._layouts:
                self._layouts[layer] = layout_of(layer)
            pooled = pool(output, self._layouts[layer], self._num_rows, self._mask)
        except ValueError as error:
            self.left_out[name] = error_text(error) or f"fails with {type(error).__name__}"
            return
        if self.pooling == "auto":
            self._pooled[name] = pooled
        else:
            token = {"mean": None, "first": pooled.first, "last": pooled.last}[self.pooling]
            self._pooled[name] = Pooled(pooled.mean if token is None else token)

    def take(self, preds: Tensor, head: str | None, features: Tensor | None) -> dict[str, Pooled]:
        """Return the pooled outputs in the order in which the layers were done, and forget them.

        Left out are the layers named ``head`` (with " + " between several) and what contains them; ``features [n, d]``,
        what they were given, come last unless layers are named.
        """
        self.reader.compare(preds)
        self.reader.close()
        pooled, self._pooled, self._mask = self._pooled, {}, None
        for name in self.named:
            if not self._num_rows:
                self.left_out[name] = "cannot be scored, since an image or text has several labels"
            elif not self._runs[name]:
                self.left_out[name] = "does not run as a module (what is compiled or scripted is not seen)"
        heads = [] if head is None else head.split(" + ")
        kept = {name: value for name, value in pooled.items() if not any(inside(part, name) for part in heads)}
        if self.modules and not self.named and features is not None and features.ndim == 2:
            kept[HEAD_INPUT] = pool(features, layout_of(nn.Identity()), len(features))
        return kept

    def parameters(self, layers: Sequence[str], head: str | None) -> dict[str, int]:
        """Parameters of layers, by name (:func:`~lightning_leep.scoring.parameters.layer_parameters`)."""
        return {} if self.source is None else layer_parameters(self.source, layers, self.modules, head)


def _one_row_each(rows: Any, num_rows: int) -> Tensor:
    if not isinstance(rows, Tensor) or not rows.is_floating_point() or rows.ndim != 2 or len(rows) != num_rows:
        found = f"{rows.dtype} of shape {list(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
        raise ValueError(f"is turned by `pooling` into {found}, not one row of features for each of {num_rows}")
    return rows.detach().clone()


@contextmanager
def capture_layers(
    source: nn.Module | None, layers: str | Sequence[str] | None, pooling: Pooling = "auto"
) -> Iterator[LayerOutputs]:
    """Record the outputs of the source's layers (:class:`LayerOutputs`) at every forward pass within the context."""
    outputs = LayerOutputs(None if layers is None else source, layers or (), pooling)
    handles: list[Any] = []

    def given(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        outputs.record_stem(layer, (*args, *kwargs.values()))

    def returned(name: str, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.record_output(name, layer, output)

    try:
        if source is not None and outputs.has_stem:
            for name in outputs.blocks:
                handles.append(source.get_submodule(name).register_forward_pre_hook(given, with_kwargs=True))
        for name, layer in outputs.modules.items():
            handles.append(layer.register_forward_hook(partial(returned, name)))
        yield outputs
    finally:
        outputs.reader.close()
        for handle in handles:
            handle.remove()
