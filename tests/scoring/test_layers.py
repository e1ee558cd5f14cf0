"""Outputs of layers taken while a model runs, against the same layers called one by one."""

import pytest
import torch
from torch import nn

from lightning_leep.scoring.layers import capture_layers
from tests._helpers.head_sources import hooks

N, T, D = 6, 5, 4
IMAGES = torch.randn(N, 3, 8, 8, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(1, 9, (N, T), generator=torch.Generator().manual_seed(1))
MASK = (torch.arange(T) < torch.tensor([5, 2, 3, 5, 1, 4]).unsqueeze(1)).long()


class Block(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, width, 1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return torch.relu_(self.conv2(self.conv1(x).relu()))


class Residual(nn.Module):
    """A small residual network; ReLU is a function, and later blocks work in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.layer1 = nn.Sequential(Block(4, 4), Block(4, 4))
        self.layer2 = nn.Sequential(Block(4, 8))
        self.unused = nn.Linear(2, 2)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.conv1(x).relu())).mean((2, 3)))


class Layer(nn.Module):
    """A transformer block as far as shapes go: texts share nothing, tokens see the ones before."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(D, 8), nn.Linear(8, D)

    def forward(self, hidden, mask=None):
        return (hidden + self.fc2(self.fc1(hidden).tanh()).cumsum(1), mask)


class Text(nn.Module):
    """Embeds, runs its blocks, reads a token."""

    def __init__(self, read: str) -> None:
        super().__init__()
        self.read = read
        self.embed = nn.Embedding(9, D)
        self.blocks = nn.ModuleList(Layer() for _ in range(2))
        self.norm, self.score = nn.LayerNorm(D), nn.Linear(D, 3)

    def forward(self, input_ids, attention_mask=None):
        hidden = self.embed(input_ids)
        for block in self.blocks:
            hidden, _ = block(hidden=hidden, mask=attention_mask)
        hidden = self.norm(hidden)
        if self.read == "first":
            return self.score(hidden[:, 0])
        if self.read == "mean":
            return self.score(hidden.mean(1))
        last = attention_mask.sum(1) - 1
        return self.score(hidden)[torch.arange(len(hidden)), last]  # as decoders do

    def hidden(self, input_ids):
        hidden, found = self.embed(input_ids), {}
        found["stem"] = hidden
        for i, block in enumerate(self.blocks):
            hidden, _ = block(hidden)
            found[f"blocks.{i}"] = hidden
        return found


def run(source, inputs, layers="auto", head="fc", **kwargs):
    with torch.no_grad(), capture_layers(source, layers, **kwargs) as outputs:
        outputs.begin(inputs, torch.zeros(N))
        preds = source(**inputs) if isinstance(inputs, dict) else source(inputs)
        return outputs.take(preds, head, None), outputs


def assert_means(batch, expected):
    assert list(batch) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(batch[name].mean, values)


def residual_layers(source):
    with torch.no_grad():
        values = {"stem": source.conv1(IMAGES).relu()}
        values["layer1.0"] = source.layer1[0](values["stem"])
        values["layer1.1"] = source.layer1[1](values["layer1.0"])
        values["layer2.0"] = source.layer2[0](values["layer1.1"])
    return {name: value.mean((2, 3)) for name, value in values.items()}


def test_stem_and_blocks_in_the_order_in_which_they_run():
    source = Residual()
    batch, outputs = run(source, IMAGES)
    assert_means(batch, residual_layers(source))
    assert outputs.left_out == {}
    assert hooks(source) == 0


def test_named_layers():
    source = Residual()
    batch, outputs = run(source, IMAGES, ["layer2", "stem", "layer1.0.conv1", "unused", "fc"])
    expected = residual_layers(source)
    with torch.no_grad():
        conv1 = source.layer1[0].conv1(source.conv1(IMAGES).relu())
    assert_means(
        batch, {"stem": expected["stem"], "layer1.0.conv1": conv1.mean((2, 3)), "layer2": expected["layer2.0"]}
    )
    assert list(outputs.left_out) == ["unused"]
    assert "does not run" in outputs.left_out["unused"]


def test_a_block_that_runs_again_has_each_output():
    block = Block(3, 3)
    source = nn.Sequential(block, block, Block(3, 3))
    batch, _ = run(source, IMAGES)
    with torch.no_grad():
        once = block(IMAGES)
        expected = {"0": once, "0 (run 2)": block(once), "2": source(IMAGES)}
    assert_means(batch, {name: value.mean((2, 3)) for name, value in expected.items()})


class Split(nn.Module):
    """Returns two rows for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x)])


class Codes(nn.Module):
    def forward(self, x):
        return (x > 0).long()


def test_what_no_pooling_fits_is_left_out_and_the_others_stay():
    source = nn.Sequential(nn.Linear(3, 4), Split(), nn.Linear(4, 4), Codes())
    batch, outputs = run(source, IMAGES[:, :, 0, 0], ["0", "1", "2", "3"], head=None)
    assert list(batch) == ["0"]
    assert "[12, 4]" in outputs.left_out["1"]
    assert "int64" in outputs.left_out["3"]


def test_a_pooling_whose_error_cannot_be_printed_leaves_the_layer_out():
    class UnprintableError(ValueError):
        def __str__(self):
            raise RuntimeError("no text")

    def pooling(output):
        raise UnprintableError

    batch, outputs = run(nn.Sequential(nn.Linear(3, 4)), IMAGES[:, :, 0, 0], ["0"], head=None, pooling=pooling)
    assert batch == {}
    assert "UnprintableError" in outputs.left_out["0"]


@pytest.mark.parametrize("read", ["first", "last", "mean"])
def test_the_token_that_the_head_reads(read):
    source = Text(read)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    batch, outputs = run(source, inputs, head="score")
    named, by_name = run(source, inputs, head="score", pooling=read)
    with torch.no_grad():
        hidden = source.hidden(IDS)
    counts = MASK.unsqueeze(2)
    assert_means(batch, {name: (value * counts).sum(1) / counts.sum(1) for name, value in hidden.items()})
    assert (outputs.reader.found.which if outputs.reader.found else None) == (None if read == "mean" else read)
    for name, value in hidden.items():
        assert batch[name].first.equal(value[:, 0])
        assert batch[name].last.equal(value[torch.arange(N), MASK.sum(1) - 1])
        assert named[name].mean.equal(getattr(batch[name], read))
    assert by_name.reader.found is None
    images, _ = run(Residual(), IMAGES, pooling=read)  # which have no tokens
    assert images["layer2.0"].mean.shape == (N, 8)


def test_the_token_stays_found_and_later_batches_have_their_own_lengths():
    source = Text("first")
    with torch.no_grad(), capture_layers(source, "auto") as outputs:
        for length in (5, 3, 1):
            inputs = {"input_ids": IDS[:, :length]}
            outputs.begin(inputs, torch.zeros(N))
            batch = outputs.take(source(**inputs), "score", None)
            assert outputs.reader.found.which == "first"
            assert batch["blocks.1"].length == length


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_transformer_encoder_of_torch():
    """In evaluation mode it nests what a padding mask leaves, and its layers see nested tensors."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(D, 2, 8, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    tokens = torch.randn(N, T, D)

    class Source(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids, attention_mask):
            return self.encoder(tokens, src_key_padding_mask=attention_mask == 0).mean(1)

    order = MASK.sum(1).argsort(descending=True)  # nothing of the first text is left out
    mask = MASK[order]
    batch, _ = run(Source(), {"input_ids": IDS, "attention_mask": mask}, head=None)
    plain = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    plain.load_state_dict(encoder.state_dict())
    means = []
    with torch.no_grad():
        for row, length in zip(tokens, mask.sum(1), strict=True):  # each text by itself, without any padding
            means.append(plain(row[:length].unsqueeze(0)).mean(1)[0])
    torch.testing.assert_close(batch["encoder.layers.1"].mean, torch.stack(means), atol=1e-5, rtol=1e-4)
