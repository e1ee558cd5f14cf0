"""Layers side by side, within a fixed width."""

import pytest
import torch

from lightning_leep.records.layers import HEAD_INPUT
from lightning_leep.scoring.layer_features import (
    MAX_WIDTH,
    LayerFeatures,
    kept_widths,
    layer_columns,
    random_projection,
)
from lightning_leep.scoring.pooling import Pooled, ReadToken

N = 5
CPU = torch.device("cpu")


def rows(width, seed=0):
    return torch.randn(N, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("widths", "kept"),
    [
        ([512, 512], [512, 512]),  # all of it fits
        ([2048], [1024]),
        ([64, 2048, 64, 2048], [64, 448, 64, 448]),  # the narrow ones whole
        ([768] * 13, [78] * 3 + [79] * 10),
        ([], []),
    ],
)
def test_kept_widths(widths, kept):
    assert kept_widths(widths) == kept
    assert sum(kept) <= MAX_WIDTH


@pytest.mark.parametrize(
    ("widths", "head", "kept"),
    [
        ([64, 512, 2048], 2, [64, 448, 512]),
        ([512, 2048, 64], 0, [512, 448, 64]),
        ([16, 32, 2048], 2, [16, 32, 976]),  # more than half is left for it
        ([16, 32, 64], 2, [16, 32, 64]),
    ],
)
def test_what_goes_into_the_head_keeps_half_of_all_columns(widths, head, kept):
    assert kept_widths(widths, head) == kept


def test_the_layer_that_feeds_the_head_is_known_by_its_features():
    batch = {"a": Pooled(rows(2000)), "b": Pooled(rows(2000, 1)), HEAD_INPUT: Pooled(rows(2000, 1))}
    assert LayerFeatures(layer_columns(batch)).widths == [512, 512]
    apart = LayerFeatures(layer_columns({**batch, HEAD_INPUT: Pooled(rows(2000, 2))}))
    assert (apart.widths, apart.columns[-1].name) == ([256, 256, 512], HEAD_INPUT)


@pytest.mark.slow
def test_wide_layers_are_projected_alike_everywhere():
    batch = {"a": Pooled(rows(1100)), "b": Pooled(rows(30, 1))}
    got = LayerFeatures(layer_columns(batch)).of(batch, N, CPU)
    projection = random_projection("a", 1100, 994)
    torch.testing.assert_close(got, torch.cat([rows(1100) @ projection.float(), rows(30, 1)], 1))
    assert not random_projection("c", 1100, 994).equal(projection)
    # Another batch, another process: the same projections, made anew from names and sizes.
    assert LayerFeatures(layer_columns(batch)).of(batch, N, CPU).equal(got)


def test_a_token_stands_beside_the_mean_where_there_are_as_many():
    batch = {
        "tokens": Pooled(rows(3), rows(3, 1), rows(3, 2), 7),
        "fewer": Pooled(rows(3, 3), rows(3, 4), rows(3, 5), 4),
        "image": Pooled(rows(2, 6)),
    }
    features = LayerFeatures(layer_columns(batch, ReadToken("last", 7)))
    assert [column.token for column in features.columns] == ["last", None, None]
    expected = torch.cat([rows(3), rows(3, 2), rows(3, 3), rows(2, 6)], 1)
    assert features.of(batch, N, CPU).equal(expected)
    longer = batch | {"tokens": Pooled(rows(3), rows(3, 1), rows(3, 2), 9)}  # a later batch of longer texts
    assert features.of(longer, N, CPU).equal(expected)


@pytest.mark.parametrize("place", ["mean", "first", "last"])
def test_what_goes_into_the_head_is_kept_once(place):
    head = {HEAD_INPUT: Pooled(rows(3, 9))}
    layers = {"a": Pooled(rows(3), rows(3, 1), rows(3, 2), 7), "b": Pooled(rows(3, 3), rows(3, 4), rows(3, 5), 7)}
    columns = layer_columns(layers | head)
    assert [(column.name, column.feeds_head) for column in columns] == [("a", False), ("b", False), (HEAD_INPUT, True)]
    # Half precision rounds it a little.
    layers["b"] = layers["b"]._replace(**{place: rows(3, 9).bfloat16().float()})
    columns = layer_columns(layers | head)
    assert [(column.name, column.feeds_head) for column in columns] == [("a", False), ("b", True)]
