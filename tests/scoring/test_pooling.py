"""Every layout of features that layers return, against features that are known."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_leep.scoring.pooling import layout_of, pool

N, T, D = 3, 5, 4
X = torch.randn(N, T, D, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])
IMAGES = torch.randn(N, D, 2, 6, generator=torch.Generator().manual_seed(1))

CONV, LINEAR, NORM2D = nn.Conv2d(3, D, 1), nn.Linear(8, D), nn.LayerNorm(D)
MIXED = nn.Sequential(nn.Conv2d(3, D, 1), nn.Linear(8, D))

LAYOUTS = {
    "rows": (X[:, 0], LINEAR, X[:, 0]),
    "images": (IMAGES, CONV, IMAGES.mean((2, 3))),
    "images, channels last (Swin)": (IMAGES.permute(0, 2, 3, 1), LINEAR, IMAGES.mean((2, 3))),
    "images of a block with linear layers (ConvNeXt)": (IMAGES, MIXED, IMAGES.mean((2, 3))),
    "channels last of a block with convolutions": (IMAGES.permute(0, 2, 3, 1), MIXED, IMAGES.mean((2, 3))),
    "concatenated channels (Inception)": (torch.cat([IMAGES] * 2, 1), CONV, torch.cat([IMAGES.mean((2, 3))] * 2, 1)),
    "as wide as the layer's channels (Inception)": (torch.randn(N, 9, 2, D), CONV, None),
    "images without a layer": (IMAGES, nn.Identity(), IMAGES.mean((2, 3))),
    "one place left": (IMAGES[:, :, :1, :1], CONV, IMAGES[:, :, 0, 0]),
    "video": (IMAGES[:, :, None], nn.Conv3d(3, D, 1), IMAGES.mean((2, 3))),
    "signal": (X.mT, nn.Conv1d(3, D, 1), X.mean(1)),
    "patches of a convolution": (X, CONV, X.mean(1)),
    "tokens": (X, LINEAR, X.mean(1)),
    "as many tokens as features": (X[:, :D], nn.Linear(D, D), X[:, :D].mean(1)),
    "tokens first": (X.mT.mT.transpose(0, 1), nn.GRU(2, D), X.mean(1)),
    "tokens first, as many as rows": (X[:, :N].transpose(0, 1), nn.GRU(2, D), X[:, :N].mean(1)),
    "rows first, as many as tokens": (X[:, :N], nn.GRU(2, D, batch_first=True), X[:, :N].mean(1)),
    "half precision": (60000 * torch.ones(N, D, 2, 6, dtype=torch.half), CONV, 60000 * torch.ones(N, D)),
    "a tuple (LSTM)": ((X, (X[:, 0], X[:, 1])), LINEAR, X.mean(1)),
    "a tuple with integers before": ((torch.zeros(N, 2).long(), X), LINEAR, X.mean(1)),
    "a tuple with other rows before": ((torch.zeros(7, 2), X), LINEAR, X.mean(1)),
    "a mapping": ({"hidden": X, "other": None}, LINEAR, X.mean(1)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_mean(name):
    output, layer, expected = LAYOUTS[name]
    expected = output.mean((2, 3)) if expected is None else expected
    pooled = pool(output, layout_of(layer), N)
    torch.testing.assert_close(pooled.mean, expected)


def test_only_tokens_that_count():
    poisoned = torch.where(MASK.bool().unsqueeze(2), X, torch.nan)
    pooled = pool(poisoned, layout_of(LINEAR), N, MASK)
    torch.testing.assert_close(pooled.mean, torch.stack([X[0].mean(0), X[1, :2].mean(0), X[2, 2:].mean(0)]))
    assert pooled.last.equal(torch.stack([X[0, -1], X[1, 1], X[2, -1]]))
    assert pooled.length == T
    # A mask of another length says nothing about these tokens; nor is there one for images.
    torch.testing.assert_close(pool(X[:, :3], layout_of(LINEAR), N, MASK).mean, X[:, :3].mean(1))
    torch.testing.assert_close(pool(IMAGES, layout_of(CONV), N, MASK).mean, IMAGES.mean((2, 3)))


def test_first_and_last_token_are_copies():
    tokens = X.clone()
    pooled = pool(tokens, layout_of(LINEAR), N)
    tokens.zero_()
    assert pooled.first.equal(X[:, 0])
    assert pooled.last.equal(X[:, -1])
    rows = X[:, 0].clone()
    kept = pool(rows, layout_of(LINEAR), N).mean
    rows.zero_()
    assert kept.equal(X[:, 0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_packed_sequences_and_nested_tensors_tell_their_lengths():
    lengths = torch.tensor([5, 2, 3])
    packed = pack_padded_sequence(X, lengths, batch_first=True, enforce_sorted=False)
    nested = torch.nested.nested_tensor([X[0], X[1, :2], X[2, :3]])
    means = [row[:length].mean(0) for row, length in zip(X, lengths, strict=True)]
    for output in ((packed, None), nested):
        pooled = pool(output, layout_of(LINEAR), N)
        torch.testing.assert_close(pooled.mean, torch.stack(means))
        assert pooled.last.equal(torch.stack([X[0, 4], X[1, 1], X[2, 2]]))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(N, D).long(), "int64"),
        (torch.zeros(7, D), r"\[7, 4\]"),
        (torch.zeros(N), r"\[3\]"),
        (None, "NoneType"),
        (({"a": 1}, "text"), "tuple"),
    ],
)
def test_outputs_that_no_pooling_fits(output, message):
    with pytest.raises(ValueError, match=message):
        pool(output, layout_of(LINEAR), N)
