"""Which token a classifier reads: the first one, the last one, or no single one."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_leep.scoring.pooling import Pooled, layout_of, pool


class ReadToken(NamedTuple):
    """A token that goes on alone."""

    which: str  #: "first" or "last", of those that count
    length: int  #: of the sequence that it is taken from

    def of(self, pooled: Pooled) -> Tensor | None:
        """The same token of another layer's output, if that is a sequence of as many tokens."""
        if pooled.length != self.length:
            return None
        return pooled.first if self.which == "first" else pooled.last


class TokenReader:
    """Watches all layers of a model for a batch and sees which token is left of a sequence.

    After a layer has returned ``[n, T, d]``, the first ``[n, d]`` that a layer is given, or that the model returns, is
    compared with the first and the last token of it.
    """

    def __init__(self, source: nn.Module | None) -> None:
        self.found: ReadToken | None = None
        self._num_rows = 0
        self._mask: Tensor | None = None
        self._sequence: Pooled | None = None
        self._handles: list[Any] = []
        for module in () if source is None else source.modules():
            if not isinstance(module, torch.jit.ScriptModule) and not any(True for _ in module.children()):
                self._handles.append(module.register_forward_pre_hook(self._before))
                self._handles.append(module.register_forward_hook(self._after))

    def begin(self, num_rows: int, mask: Tensor | None) -> None:
        """Note the batch that comes next."""
        self._num_rows, self._mask, self._sequence = num_rows, mask, None

    def compare(self, value: Any) -> None:
        """Compare what goes on with the tokens of the last sequence."""
        sequence = self._sequence
        if sequence is None or not isinstance(value, Tensor) or value.ndim != 2 or len(value) != self._num_rows:
            return
        tokens = {"first": sequence.first, "last": sequence.last}
        same = [
            name
            for name, token in tokens.items()
            if token is not None and token.dtype == value.dtype and token.equal(value)
        ]
        self.found, self._sequence = ReadToken(same[0], sequence.length) if same else None, None

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        if args:
            self.compare(args[0])

    def _after(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim != 3:
            return
        try:
            pooled = pool(output, layout_of(layer), self._num_rows, self._mask)
        except ValueError:
            return
        if pooled.length > 1:
            self._sequence = pooled
