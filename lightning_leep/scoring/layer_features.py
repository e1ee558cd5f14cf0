"""Features of all layers side by side, no wider than a fixed limit."""

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_leep.records.layers import HEAD_INPUT
from lightning_leep.scoring.pooling import Pooled, ReadToken
from lightning_leep.scoring.source import Outputs

#: Width of all layers together. One decomposition of so many features takes 0.3 s, a row of them 4 KiB.
MAX_WIDTH = 1024
#: Least share of that for what goes into the head, if it is so wide. Forecasts of fine-tuning add to the probe on all
#: layers what projection takes from the head's own; the less that is, the better (benchmarks/projection.py).
HEAD_SHARE = 1 / 2
#: Two features that differ by less than this share of their length are the same up to half precision.
SAME = 0.02


class LayerColumns(NamedTuple):
    """One layer among the features."""

    name: str
    width: int  #: of its pooled output
    token: str | None = None  #: "first" or "last": that token stands beside the mean
    feeds_head: bool = False  #: whether this is what goes into the source's head


def layer_columns(batch: Mapping[str, Pooled], token: ReadToken | None = None) -> tuple[LayerColumns, ...]:
    """Choose what is kept of each layer, given the first batch, in the order in which the layers were done.

    The ``token`` that the head reads stands beside the mean in every layer that has as many tokens. What goes into the
    head is scored anyway: it is left out if a layer's mean or token is the same, and nothing is kept beside it alone.
    """
    columns = []
    for name, layer in batch.items():
        which = None if token is None or token.of(layer) is None else token.which
        columns.append(LayerColumns(name, _rows(layer, which).shape[1], which, name == HEAD_INPUT))
    if HEAD_INPUT in batch:
        last = columns.pop()
        same = [place for place, column in enumerate(columns) if _is_any_of(batch[HEAD_INPUT].mean, batch[column.name])]
        if same:
            columns[same[-1]] = columns[same[-1]]._replace(feeds_head=True)
        else:
            columns.append(last)
    return tuple(columns) if any(not column.feeds_head for column in columns) else ()


class LayerFeatures:
    """Brings the layers of any batch to one matrix ``[n, D]``, D at most ``MAX_WIDTH``; wide ones by projection."""

    def __init__(self, columns: Sequence[LayerColumns]) -> None:
        self.columns = tuple(columns)
        head = next((place for place, column in enumerate(columns) if column.feeds_head), None)
        self.widths = kept_widths([column.width for column in columns], head)  #: that are kept of each layer
        self._projections: dict[str, Tensor] = {}

    def join(self, batch: Outputs) -> Outputs:
        """Put the layers of a batch side by side."""
        if not self.columns:
            return batch._replace(layers={})
        features = self.of(batch.layers, len(batch.target), batch.preds.device)
        return batch._replace(layers={}, layer_features=features)

    def of(self, batch: Mapping[str, Pooled], num_rows: int, device: torch.device) -> Tensor:
        """Features ``[n, D]`` of a batch; NaN for a layer that it lacks or has in another width."""
        parts = []
        for column, kept in zip(self.columns, self.widths, strict=True):
            layer = batch.get(column.name)
            rows = None if layer is None else _rows(layer, column.token)
            if rows is None or rows.shape[1] != column.width:
                rows = torch.full((num_rows, kept), torch.nan, device=device)
            elif kept < column.width:
                rows = self._project(rows, column, kept)
            parts.append(rows.to(device))
        return torch.cat(parts, dim=1)

    def _project(self, rows: Tensor, column: LayerColumns, kept: int) -> Tensor:
        if column.name not in self._projections:
            self._projections[column.name] = random_projection(column.name, column.width, kept)
        projection = self._projections[column.name] = self._projections[column.name].to(rows)
        with torch.autocast(device_type=rows.device.type, enabled=False):
            return rows @ projection  # [n, d] @ [d, k]


def kept_widths(widths: Sequence[int], head: int | None = None) -> list[int]:
    """Share out ``MAX_WIDTH`` columns among layers: the narrow ones keep all of theirs, the others equally many.

    The layer at the place ``head`` keeps at least ``HEAD_SHARE`` of them, or all of its own.
    """
    kept = _shares(widths, MAX_WIDTH)
    if head is None or kept[head] >= (wanted := min(widths[head], int(HEAD_SHARE * MAX_WIDTH))):
        return kept
    others = _shares([*widths[:head], *widths[head + 1 :]], MAX_WIDTH - wanted)
    return [*others[:head], wanted, *others[head:]]


def _shares(widths: Sequence[int], total: int) -> list[int]:
    kept, left = [0] * len(widths), total
    narrowest_first = sorted(range(len(widths)), key=widths.__getitem__)
    for place, layer in enumerate(narrowest_first):
        kept[layer] = max(1, min(widths[layer], left // (len(widths) - place)))
        left -= kept[layer]
    return kept


def random_projection(name: str, width: int, kept: int) -> Tensor:
    """``[width, kept]`` float64 with orthonormal columns, a function of its arguments."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    gaussian = torch.randn(width, kept, dtype=torch.float64, generator=generator)
    return torch.linalg.qr(gaussian)[0]


def _rows(layer: Pooled, token: str | None) -> Tensor:
    beside = {"first": layer.first, "last": layer.last, None: None}[token]
    return layer.mean if beside is None else torch.cat([layer.mean, beside.to(layer.mean)], dim=1)


def _is_any_of(features: Tensor, layer: Pooled) -> bool:
    others = [value for value in (layer.mean, layer.first, layer.last) if value is not None]
    return any(
        other.shape == features.shape and bool((features - other.to(features)).norm() <= SAME * features.norm())
        for other in others
    )
