"""Features are what the source's last layer was really given: which layer that is, and what becomes of it."""

import pytest
import torch
from torch import nn

from lightning_leep.scoring.head import capture_head_input
from tests._helpers.head_sources import D, Net, X, Y, Z, assert_scores_of, given_to, hooks, run, sequential_classifier


def captured(source, head=None, inputs=X, target=Y):
    with capture_head_input(source, head) as capture, torch.no_grad():
        return capture.take(source(inputs), target), capture.name


@pytest.mark.parametrize("name", ["fc", "classifier", "head", "linear", "last_linear", "logits", "top"])
def test_head_under_any_name(name):
    source = Net(name, nn.Linear(D, Z))
    features, found = captured(source)
    assert found == name
    assert torch.equal(features, given_to(source, name))
    report = run(source)
    assert report.feature_layer == name
    assert_scores_of(report, given_to(source, name))
    assert not any("linear layer" in note for note in report.notes)


def test_sequential_classifier():
    source = Net("classifier", sequential_classifier()).eval()
    features, found = captured(source)
    assert found == "classifier.3"
    assert torch.equal(features, given_to(source, "classifier.3"))
    assert_scores_of(run(source), given_to(source, "classifier.3"))


def test_head_of_a_module_within_a_module():
    inner = Net("fc", nn.Linear(D, Z))
    outer = nn.Sequential(inner, nn.Softmax(dim=1))
    report = run(outer, from_logits=False)
    assert report.feature_layer == "0.fc"
    assert_scores_of(report, given_to(inner, "fc"))


@pytest.mark.parametrize("layer", ["classifier.0", "classifier.1", "classifier.2", "classifier.3", "classifier"])
def test_head_named_by_the_user(layer):
    """``classifier.1`` works in place: what it was given is not what is left of it."""
    source = Net("classifier", sequential_classifier()).eval()
    assert torch.equal(captured(source, layer)[0], given_to(source, layer))
    report = run(source, head=layer)
    assert report.feature_layer == layer
    assert_scores_of(report, given_to(source, layer))


@pytest.mark.parametrize("head", ["classifier.6", "clasifier"])
def test_unknown_name_lists_the_linear_layers(head):
    source = Net("classifier", sequential_classifier())
    with pytest.raises(ValueError, match=r"got .*\['backbone.0', 'backbone.2', 'classifier.0', 'classifier.3'\]"):
        run(source, head=head)
    with pytest.raises(ValueError, match=r"got 'fc'. Its linear layers: \[\]"):
        run(lambda x: source(x), head="fc")
    assert hooks(source) == 0


class Unused(Net):
    """Has a ``head`` that never runs, as a model with its forward method replaced."""

    def __init__(self) -> None:
        super().__init__("out", nn.Linear(D, Z))
        self.head = nn.Linear(D, Z)


class Later(Net):
    """``fc`` is a hidden layer here; ``out`` comes after it."""

    def __init__(self) -> None:
        super().__init__("fc", nn.Linear(D, D))
        self.out = nn.Linear(D, Z)

    def forward(self, x):
        return self.out(super().forward(x))


class Auxiliary(Net):
    """The classifier runs before another linear layer, whose output is not returned."""

    def __init__(self) -> None:
        super().__init__("fc", nn.Linear(D, Z))
        self.projection = nn.Linear(D, 4)

    def forward(self, x):
        logits = super().forward(x)
        self.projection(self.backbone[:2](x)[:, :D])
        return logits


@pytest.mark.parametrize(("make", "name"), [(Unused, "out"), (Later, "out"), (Auxiliary, "fc")])
def test_common_name_counts_if_the_layer_runs_and_makes_the_outputs(make, name):
    source = make()
    features, found = captured(source)
    assert found == name
    hidden = given_to(source, source.name)
    assert torch.equal(features, source.fc(hidden).detach() if make is Later else hidden)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def test_named_head_that_gives_no_features():
    with pytest.raises(ValueError, match=r"`head` must name a layer .* 'head' did not run \(if torch.compile compiled"):
        run(Unused(), head="head")
    pixels = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 1)), nn.Linear(1, Z), nn.Unflatten(0, (-1, 5)), Mean())
    with pytest.raises(ValueError, match=r"25\] labels, but '2' was given torch.float32 of shape \[125, 1\]"):
        run(pixels, head="2")
    embedding = nn.Sequential(nn.EmbeddingBag(9, D), nn.Linear(D, Z))
    with pytest.raises(ValueError, match=r"'0' was given torch.int64 of shape \[25, 5\]"):
        run(embedding, inputs=torch.randint(9, X.shape), head="0")


def test_head_called_with_keywords():
    class Keywords(Net):
        def forward(self, x):
            return self.fc(input=self.backbone(x))

    source = Keywords("fc", nn.Linear(D, Z))
    assert torch.equal(captured(source)[0], given_to(source, "fc"))


def test_features_outlive_what_the_model_does_next():
    """A view of all tokens is not kept alive, and memory that the model uses again is not read."""

    class FirstToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.buffer = Net("fc", nn.Linear(D, Z)), torch.empty(25, 200, D)

        def forward(self, x):
            tokens = self.buffer[: len(x)]
            tokens.copy_(self.net.backbone(x).unsqueeze(1))
            return self.net.fc(tokens[:, 0])

    source = FirstToken()
    features, _ = captured(source, inputs=X[:25], target=Y[:25])
    assert features.untyped_storage().nbytes() == 25 * D * 4
    assert_scores_of(run(source), given_to(source.net, "fc"))


@pytest.mark.parametrize("from_logits", [True, False])
def test_outputs_outlive_a_buffer_that_the_source_uses_again(from_logits):
    net, buffer = nn.Sequential(Net("fc", nn.Linear(D, Z)), nn.Softmax(1) if not from_logits else nn.Identity()), {}

    def source(x):
        out = buffer.setdefault(len(x), torch.empty(len(x), Z))
        with torch.no_grad():
            return out.copy_(net(x))

    again, fresh = run(source, from_logits=from_logits), run(lambda x: net(x).detach(), from_logits=from_logits)
    for name, value in fresh.scalars().items():
        if name not in ("seconds", "samples_per_second"):
            assert again.scalars()[name] == value, name


@pytest.mark.parametrize("width", [9, D])
def test_features_of_another_layer_in_some_batches(width):
    """The last batch goes past the head, so that a layer of the backbone is the last to run, be it as wide or not."""

    class Sometimes(Net):
        def forward(self, x):
            return super().forward(x) if len(x) == 25 else self.backbone(x) @ self.fc.weight.T

    source = Sometimes("fc", nn.Linear(D, Z))
    source.backbone = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, D))
    with pytest.raises(ValueError, match="features for one batch and none for another"):
        run(source)


@pytest.mark.parametrize("head", [None, "fc"])
def test_hooks_are_removed_and_others_stay(head):
    source = Net("fc", nn.Linear(D, Z))
    source.fc.register_forward_pre_hook(lambda module, args: None)
    run(source, head=head)
    assert hooks(source) == 1
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(source, inputs=X[:, :3], head=head)
    assert hooks(source) == 1


def test_gradients_do_not_hang_on_the_features():
    source = Net("fc", nn.Linear(D, Z))
    with capture_head_input(source) as capture:
        assert not capture.take(source(X), Y).requires_grad
        assert capture.take(source(X)[:0], Y[:0]) is None  # 60 rows of features, no label
        source(X)
        assert capture.take(torch.zeros(60, Z), Y) is not None
        assert capture.take(torch.zeros(60, Z), Y) is None  # handed over once
