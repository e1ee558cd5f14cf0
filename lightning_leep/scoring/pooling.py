"""From what a layer returns, of any layout, to one row of features for each image or text; which token is read."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

#: A way to pool, or a function from what a layer returns to ``[n, d]``.
Pooling = str | Callable[[Any], Tensor]
POOLINGS = ("auto", "mean", "first", "last")


class Pooled(NamedTuple):
    """One layer's output for n images or texts."""

    mean: Tensor  #: ``[n, d]``, over space or over the tokens that count
    first: Tensor | None = None  #: ``[n, d]``, of the first token; None unless the output is a sequence
    last: Tensor | None = None  #: ``[n, d]``, of the last token that counts
    length: int = 0  #: tokens


class Layout(NamedTuple):
    """What a module's parts say of the layout of its output."""

    sizes: set[int]  #: of the first two dimensions of its parameters
    convolutions: set[int]  #: dimensions of its convolutions' weights, which are those of their outputs
    has_other: bool  #: whether it has linear layers or the like
    sequence_first: bool  #: whether torch's recurrent and attention layers in it take ``[T, n, d]``


def layout_of(layer: nn.Module) -> Layout:
    """Read the layout off a module, for the output it returns or, for the input of a layer, that it takes."""
    sizes, convolutions, has_other = set[int](), set[int](), False
    for part in layer.modules():
        shapes = [p.shape for p in part.parameters(recurse=False) if not is_lazy(p)]
        sizes.update(size for shape in shapes for size in shape[:2])
        if isinstance(part, nn.modules.conv._ConvNd):
            convolutions.add(part.weight.ndim)
        else:
            has_other |= any(len(shape) == 2 for shape in shapes) or isinstance(part, nn.LayerNorm)
    sequence_first = next((not part.batch_first for part in layer.modules() if hasattr(part, "batch_first")), False)
    return Layout(sizes, convolutions, has_other, bool(sequence_first))


def pool(output: Any, layout: Layout, num_rows: int, mask: Tensor | None = None) -> Pooled:
    """Pool the first tensor in ``output`` that has a row for each image or text.

    ``[n, d]`` stays as it is. In ``[n, d, ...]`` and ``[n, ..., d]`` the features are the dimension whose size is among
    the sizes of the layer's parameters; if that does not tell, dimension 1 for a layer with convolutions of that many
    dimensions and for images without any layer, else the last one. A sequence may also be ``[T, n, d]``; its ``mask``
    ``[n, T]`` is non-zero for the tokens that count. A ``ValueError`` says what is wrong after the layer's name.
    """
    tensors = list(_tensors(output, mask))
    for value, counted in tensors:
        if value.is_floating_point() and (rows := _rows_first(value, layout, num_rows)) is not None:
            return _pool_rows(rows, layout, counted)
    if not tensors:
        raise ValueError(f"returns no tensor but {type(output).__name__}")
    value = next((value for value, _ in tensors if value.is_floating_point()), tensors[0][0])
    if not value.is_floating_point():
        raise ValueError(f"returns {value.dtype}, not floating point")
    raise ValueError(f"returns the shape {list(value.shape)}, which has no row for each of {num_rows}")


def _tensors(output: Any, mask: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The tensors in an output, each with the mask ``[n, T]`` of its tokens."""
    if isinstance(output, PackedSequence):
        padded, lengths = pad_packed_sequence(output, batch_first=True)  # [n, T, d], [n]
        yield padded, torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
    elif isinstance(output, Tensor) and output.is_nested:
        # torch's TransformerEncoder nests what a padding mask left.
        rows = [row.shape[0] for row in output.unbind()]
        padded = output.to_padded_tensor(0.0)
        yield padded, torch.arange(padded.shape[1]) < torch.tensor(rows).unsqueeze(1)
    elif isinstance(output, Tensor):
        yield output, mask
    elif isinstance(output, Mapping | tuple | list):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part, mask)


def _rows_first(value: Tensor, layout: Layout, num_rows: int) -> Tensor | None:
    """``[n, ...]``; None if no dimension has a place for each row."""
    fits = [axis for axis in (0, 1) if value.ndim > axis + 1 and value.shape[axis] == num_rows]
    if 1 in fits and (value.ndim != 3 or (0 in fits and not layout.sequence_first)):
        fits.remove(1)
    return value.movedim(fits[-1], 0) if fits else None


def _pool_rows(rows: Tensor, layout: Layout, mask: Tensor | None) -> Pooled:
    # Sums over many pixels or tokens would overflow or round in half precision.
    dtype = torch.float32 if rows.dtype.itemsize < 4 else None
    if rows.ndim == 2:
        return Pooled(rows.to(dtype or rows.dtype, copy=True))
    axis = _feature_axis(rows, layout)
    if rows.ndim > 3 or axis == 1:
        return Pooled(rows.mean(dim=[i for i in range(1, rows.ndim) if i != axis], dtype=dtype))
    length = rows.shape[1]  # [n, T, d]
    if mask is None or mask.shape != rows.shape[:2]:
        mean, places = rows.mean(dim=1, dtype=dtype), torch.full(rows.shape[:1], length - 1, device=rows.device)
    else:
        counts = mask.to(rows.device) != 0  # [n, T]
        total = torch.where(counts.unsqueeze(2), rows, 0.0).sum(dim=1, dtype=dtype)  # [n, d]
        mean = total / counts.sum(dim=1, keepdim=True).clamp(min=1)
        places = counts.long().cumsum(dim=1).argmax(dim=1)  # [n], the last that counts
    # Copies: a view would keep all tokens alive, and a model may use the memory again.
    return Pooled(mean, rows[:, 0].clone(), rows[torch.arange(len(rows)), places], length)


def _feature_axis(rows: Tensor, layout: Layout) -> int:
    """Dimension of the features in ``[n, d, ...]`` or ``[n, ..., d]``."""
    last, convolution = rows.ndim - 1, rows.ndim in layout.convolutions
    fits = [axis for axis in (1, last) if rows.shape[axis] in layout.sizes]
    if len(fits) == 1 and (layout.has_other or not convolution):
        return fits[0]
    return 1 if convolution or (rows.ndim > 3 and not layout.has_other) else last


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
