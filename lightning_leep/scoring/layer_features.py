"""Features of all layers side by side, no wider than a fixed limit."""

import zlib
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_leep.scoring.pooling import Pooled
from lightning_leep.scoring.reading import ReadToken

#: Width of all layers side by side: the decomposition of so many features takes about a second, their rows 4 KiB each.
MAX_WIDTH = 1024


class LayerColumns(NamedTuple):
    """One layer's share of the features."""

    name: str
    token: str | None  #: "first" or "last": that token beside the mean
    width: int  #: d, of the output as it was pooled
    kept: int  #: columns that are kept of it


class LayerFeatures:
    """Brings the layers of a batch to one matrix ``[n, D]``, D at most ``MAX_WIDTH``, in the same way for all batches.

    A layer that is too wide is projected to its share of the columns by a random matrix with orthonormal columns, which
    is the same in every process and run.
    """

    def __init__(self, columns: Sequence[LayerColumns]) -> None:
        self.columns = tuple(columns)
        self._projections: dict[str, Tensor] = {}

    @classmethod
    def plan(cls, batch: Mapping[str, Pooled], token: ReadToken | None = None) -> "LayerFeatures":
        """Features as the first batch shows them.

        Args:
            batch: The layers in their order.
            token: Taken in beside the mean where a layer has it.
        """
        tokens = [None if token is None or token.of(layer) is None else token.which for layer in batch.values()]
        widths = [_rows(layer, which).shape[1] for layer, which in zip(batch.values(), tokens, strict=True)]
        return cls([LayerColumns(*column) for column in zip(batch, tokens, widths, kept_widths(widths), strict=True)])

    @property
    def width(self) -> int:
        """D."""
        return sum(column.kept for column in self.columns)

    @property
    def slices(self) -> list[slice]:
        """Where each layer stands in ``[n, D]``."""
        ends = accumulate((column.kept for column in self.columns), initial=0)
        return [slice(start, end) for start, end in pairwise(ends)]

    def of(self, batch: Mapping[str, Pooled], num_rows: int, device: torch.device) -> Tensor:
        """Features ``[n, D]`` of a batch; NaN in the columns of a layer that it lacks or has in another width."""
        parts = []
        for column in self.columns:
            layer = batch.get(column.name)
            rows = None if layer is None else _rows(layer, column.token)
            if rows is None or rows.shape[1] != column.width:
                parts.append(torch.full((num_rows, column.kept), torch.nan, device=device))
            else:
                parts.append(self._project(rows, column))
        return torch.cat(parts, dim=1)

    def _project(self, rows: Tensor, column: LayerColumns) -> Tensor:
        if column.kept == column.width:
            return rows
        projection = self._projections.get(column.name)
        if projection is None or projection.device != rows.device or projection.dtype != rows.dtype:
            projection = random_projection(column.name, column.width, column.kept).to(rows)
            self._projections[column.name] = projection
        with torch.autocast(device_type=rows.device.type, enabled=False):
            return rows @ projection  # [n, d] @ [d, k]


def kept_widths(widths: Sequence[int], total: int = MAX_WIDTH) -> list[int]:
    """Columns kept of layers of these widths: all of the narrow ones, and of the others equally many."""
    kept, left = [0] * len(widths), total
    narrowest_first = sorted(range(len(widths)), key=widths.__getitem__)
    for place, layer in enumerate(narrowest_first):
        kept[layer] = max(1, min(widths[layer], left // (len(widths) - place)))
        left -= kept[layer]
    return kept


def random_projection(name: str, width: int, kept: int) -> Tensor:
    """``[width, kept]`` float64 with orthonormal columns, the same whenever the name and the sizes are."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    gaussian = torch.randn(width, kept, dtype=torch.float64, generator=generator)
    return torch.linalg.qr(gaussian)[0]


def _rows(layer: Pooled, token: str | None) -> Tensor:
    beside = {"first": layer.first, "last": layer.last, None: None}[token]
    return layer.mean if beside is None else torch.cat([layer.mean, beside.to(layer.mean)], dim=1)
