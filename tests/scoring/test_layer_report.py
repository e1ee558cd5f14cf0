"""Scores by layer in the report of a scoring pass, against the same layers called one by one."""

import dataclasses

import pytest
import torch
from torch import nn

from lightning_leep import ScoringOptions, score
from lightning_leep.functional import h_score, linear_probe, log_me
from lightning_leep.scoring.layer_features import random_projection
from lightning_leep.scoring.run import score_outputs
from tests._helpers.head_sources import hooks

C, N = 4, 80
GENERATOR = torch.Generator().manual_seed(0)
Y = torch.randint(C, (N,), generator=GENERATOR)
X = torch.randn(N, 3, 6, 6, generator=GENERATOR, dtype=torch.double)
X[torch.arange(N), 0, Y] += 1
BATCHES = list(zip(X.split(30), Y.split(30), strict=True))


class Block(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, width, 3), nn.Conv2d(width, width, 1)

    def forward(self, x):
        return self.conv2(self.conv1(x).relu())


class Source(nn.Module):
    """A stem, two blocks, a pooled and normalised input of the head."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.stem = nn.Conv2d(3, 5, 1)
        self.block1, self.block2 = Block(5, 6), Block(6, 7)
        self.fc = nn.Linear(7, 9)
        self.double()
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.double)

    def layers(self, x):
        stem = self.stem(x).relu()
        block1 = self.block1(stem)
        block2 = self.block2(block1)
        return {"stem": stem, "block1": block1, "block2": block2}

    def forward(self, x):
        layers = self.layers(x)
        return self.fc(layers["block2"].mean((2, 3)).tanh())

    def pooled(self):
        with torch.no_grad():
            means = {name: value.mean((2, 3)) for name, value in self.layers(X).items()}
        return means | {"head input": means["block2"].tanh()}


def run(source=None, data=BATCHES, **kwargs):
    return score(source or Source(), data, C, progress=False, num_permutations=0, **kwargs)


def assert_scores(report, expected):
    assert [layer.name for layer in report.layers] == list(expected)
    for layer in report.layers:
        rows = expected[layer.name]
        probe = linear_probe(rows, Y, C)
        assert layer.width == layer.kept_width == rows.shape[1]
        assert layer.probe_accuracy == pytest.approx(probe.accuracy.item(), abs=1e-9)
        assert layer.probe_standard_error == pytest.approx(probe.standard_error.item(), abs=1e-9)
        assert layer.h_score == pytest.approx(h_score(rows, Y, C).item(), abs=1e-9)
        assert layer.log_me == pytest.approx(log_me(rows, Y, C).item(), abs=1e-9)
    together = linear_probe(torch.cat(list(expected.values()), 1), Y, C)
    assert report.multi_layer_probe_accuracy == pytest.approx(together.accuracy.item(), abs=1e-9)
    assert report.multi_layer_probe_standard_error == pytest.approx(together.standard_error.item(), abs=1e-9)


@pytest.mark.parametrize("memory", ["device", "cpu", "second_pass"])
def test_every_layer_by_definition_and_nothing_else_changes(memory):
    source = Source()
    report, without = run(source, memory=memory), run(layers=None, memory=memory)
    assert_scores(report, source.pooled())
    assert [layer.name for layer in report.layers if layer.feeds_head] == ["head input"]
    # What goes into the head is scored as before.
    assert report.layers[-1].probe_accuracy == report.linear_probe_accuracy
    assert hooks(source) == 0
    assert without.layers == ()
    times = {"seconds", "samples_per_second", "joint"}
    for field in dataclasses.fields(report):
        if field.name not in times and not field.name.startswith(("layers", "multi_layer_probe")):
            assert getattr(report, field.name) == getattr(without, field.name), field.name


def test_without_feature_scores_there_are_none_of_layers():
    assert run(feature_scores=False).layers == ()
    with pytest.raises(ValueError, match="`layers="):
        run(layers=["block1"], feature_scores=False)


def test_named_layers_and_pooling():
    source = Source()
    report = run(source, layers=["block1"], pooling=lambda output: output.amax((2, 3)))
    with torch.no_grad():
        expected = {"block1": source.layers(X)["block1"].amax((2, 3))}
    assert_scores(report, expected)
    report = run(layers=["block1"], pooling=lambda output: output)
    assert any("torch.float64 of shape [30, 6, 4, 4]" in note for note in report.notes)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": ["block1", "block7", ""]}, ValueError, "'block7', ''.*stem, block1, block2"),
        ({"layers": "block1"}, TypeError, "`layers`"),
        ({"layers": [1]}, TypeError, "`layers`"),
        ({"layers": []}, ValueError, "`layers`"),
        ({"layers": ["block1", "block1"]}, ValueError, "`layers`"),
        ({"pooling": "max"}, ValueError, "`pooling`"),
    ],
)
def test_bad_options(options, error, message):
    source = Source()
    with pytest.raises(error, match=message):
        run(source, **options)
    assert hooks(source) == 0


class Skipping(Source):
    """A block is NaN in places, and the next one does not always run as a module."""

    def forward(self, x):
        block1 = self.block1(self.stem(x).relu()).nan_to_num(5.0)
        block2 = self.block2(block1) if len(x) == 30 else self.block2.conv2(self.block2.conv1(block1).relu())
        return self.fc(block2.mean((2, 3)).tanh())


def test_a_block_of_nan_and_one_that_does_not_always_run_are_left_out_and_the_others_stay():
    source = Skipping()
    source.block1.register_forward_hook(lambda module, args, output: torch.where(output > 5, torch.nan, output))
    report = run(source)
    assert [layer.name for layer in report.layers] == ["stem", "head input"]
    stem = linear_probe(source.pooled()["stem"], Y, C)
    assert report.layers[0].probe_accuracy == pytest.approx(stem.accuracy.item())
    said = next(note for note in report.notes if "which is NaN, infinite or very large for some row" in note)
    assert "'block1'" in said
    assert "'block2'" in said


def test_one_row_a_class():
    report = score(Source(), [(X[:4], torch.arange(4))], 4, progress=False, num_permutations=0)
    assert [layer.probe_accuracy for layer in report.layers] == [None] * 4
    assert report.multi_layer_probe_accuracy is None
    assert all(layer.log_me is not None for layer in report.layers)


def test_dense_prediction_has_no_layers():
    source = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 9, 1)).double()
    target = torch.randint(C, (N, 6, 6))
    assert run(source, [(X, target)]).layers == ()
    report = run(source, [(X, target)], layers=["1"])
    assert any("'1', which cannot be scored, since an image" in note for note in report.notes)


@pytest.mark.parametrize("layer", ["block2", "block2.conv1"])
def test_any_layer_can_be_the_head(layer):
    source = Source()
    report = run(source, head=layer)
    rows = source.pooled()["block1"]
    assert report.feature_layer == layer
    assert report.linear_probe_accuracy == pytest.approx(linear_probe(rows, Y, C).accuracy.item(), abs=1e-9)
    assert report.log_me == pytest.approx(log_me(rows, Y, C).item(), abs=1e-9)


def test_layers_that_were_computed_before():
    source = Source()
    expected = source.pooled()
    layers = {name: rows for name, rows in expected.items() if name != "head input"}
    with torch.no_grad():
        logits, features = source(X), expected["head input"]
    assert_scores(score_outputs(logits, Y, C, features=features, layers=layers), expected)
    assert_scores(
        score_outputs(logits.numpy(), Y.numpy(), C, layers={"a": layers["stem"].numpy()}), {"a": layers["stem"]}
    )
    with pytest.raises(ValueError, match=r"layers\['stem'\]"):
        score_outputs(logits, Y, C, layers={"stem": layers["stem"][1:]})


def test_a_ranking_has_the_probe_on_the_head_as_it_is_among_all_layers_if_that_was_projected():
    wide = {name: torch.randn(N, width, generator=GENERATOR) for name, width in (("a", 900), ("b", 900))}
    options = ScoringOptions(each_layer=False, num_permutations=0)
    report = score_outputs(torch.randn(N, 5), Y, C, features=wide["b"], layers=wide, options=options)
    first, last = report.layers
    assert (first.kept_width, first.probe_accuracy) == (512, None)
    rows = wide["b"].double() @ random_projection("b", 900, 512)
    assert last.probe_accuracy == pytest.approx(linear_probe(rows, Y, C).accuracy.item(), abs=1e-6)
