"""The head is the layer that makes the source's outputs: what only looks like one is not taken for it."""

import pytest
import torch
from torch import nn

from lightning_leep import score
from tests._helpers.head_sources import (
    D,
    Hidden,
    LowRank,
    Net,
    X,
    Y,
    Z,
    assert_scored_on,
    assert_scored_on_logits,
    assert_scores_of,
    given_to,
    run,
    sequential_classifier,
)


class Channels(nn.Module):
    """``[N, 5]`` -> ``[N, D, 5]``, weighted by a squeeze-and-excitation gate of linear layers."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv1d(1, D, 3, padding=1), gate

    def forward(self, x):
        h = self.conv(x.unsqueeze(1))
        return h * self.gate(h.mean(2)).unsqueeze(2)


def gate_of_linear_layers():
    return nn.Sequential(nn.Linear(D, 2), nn.ReLU(), nn.Linear(2, D), nn.Sigmoid())


class Convolutional(nn.Module):
    """Pools before (``[N, D, 1]`` into the head) or after its 1 x 1 convolution."""

    def __init__(self, name: str, pool_first: bool, gate: nn.Module) -> None:
        super().__init__()
        self.body, self.name, self.pool_first = Channels(gate), name, pool_first
        setattr(self, name, nn.Conv1d(D, Z, 1))

    def pooled(self, x):
        return self.body(x).mean(2, keepdim=True)

    def forward(self, x):
        head = getattr(self, self.name)
        return head(self.pooled(x)).flatten(1) if self.pool_first else head(self.body(x)).mean(2)


@pytest.mark.parametrize(("name", "pool_first"), [("head", False), ("conv", True)])
def test_gate_is_no_head(name, pool_first):
    """The gate's last linear layer is the last one to run, and has a row for each label."""
    assert_scored_on_logits(Convolutional(name, pool_first, gate_of_linear_layers()))


@pytest.mark.parametrize("name", ["fc", "classifier", "head", "linear"])
def test_convolution_under_a_common_name_that_is_given_pooled_channels(name):
    source = Convolutional(name, True, gate_of_linear_layers())
    with torch.no_grad():
        assert_scored_on(source, name, source.pooled(X).squeeze(2))


def test_gate_with_as_many_channels_as_classes_is_no_head():
    class Gated(Convolutional):
        def forward(self, x):
            return super().forward(x) * self.after(x).sigmoid()

    source = Gated("classifier", True, nn.Identity())
    source.after = nn.Linear(5, Z)
    with torch.no_grad():
        assert_scored_on(source, "classifier", source.pooled(X).squeeze(2))


def test_hidden_layer_before_a_product_with_a_parameter_is_no_head():
    """As CLIP's ``x @ proj``."""

    class LastStepByHand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.projection = nn.Linear(5, D), nn.Parameter(torch.randn(Z, D))

        def forward(self, x):
            return self.hidden(x).relu() @ self.projection.T

    assert_scored_on_logits(LastStepByHand())


def test_adapter_of_the_classifier_is_no_head():
    """The classifier as a whole is, or the block that ends in it."""
    source = Net("fc", LowRank(nn.Linear(D, Z)))
    assert_scored_on(source, "fc", given_to(source, "fc"))
    classifier = sequential_classifier()
    classifier[3] = LowRank(classifier[3])
    source = Net("classifier", classifier)
    assert_scored_on(source, "classifier", given_to(source, "classifier"))


def test_adapter_of_a_layer_of_any_other_name_is_no_head():
    source = Net("out", LowRank(nn.Linear(D, Z)))
    assert_scored_on_logits(source)
    assert_scored_on(source, "out", given_to(source, "out"), head="out")


@pytest.mark.parametrize("wrap", [lambda layer: layer, LowRank])
def test_tokens_are_rows_of_dense_labels(wrap):
    """``[N, T, d]`` goes into the head, be it linear or with an adapter, ``[N, T, Z]`` comes out."""

    class Tagger(Net):
        def forward(self, x):
            return super().forward(x).movedim(-1, 1)

    source = Tagger("classifier", wrap(nn.Linear(D, Z)))
    report = run(source, Y.reshape(12, 5), X.reshape(12, 5, 5))
    assert report.feature_layer == "classifier"
    assert_scores_of(report, given_to(source, "classifier"))


def test_sequential_head_of_as_wide_hidden_layers_ends_in_the_head():
    """One after the other is not one beside the other."""
    classifier = nn.Sequential(nn.Linear(D, Z), nn.Tanh(), nn.Linear(Z, Z))
    source = Net("classifier", classifier)
    assert_scored_on(source, "classifier.2", given_to(source, "classifier.2"))


def test_layer_of_as_many_outputs_elsewhere_is_not_added():
    source = Net("out", nn.Linear(D, Z))
    chain = nn.Sequential(source, Hidden("last", nn.Linear(Z, Z)))
    with torch.no_grad():
        assert_scored_on(chain, "1.last", source(X).tanh())


class Pooling(nn.Module):
    """As RoBERTa's ``classifier``: is given all tokens, of which it takes the first."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.out_proj = nn.Linear(D, D), nn.Linear(D, Z)

    def forward(self, tokens):
        return self.out_proj(self.dense(tokens[:, 0]).tanh())


def test_last_linear_layer_inside_a_classifier_that_pools():
    class Model(Net):
        def forward(self, x):
            return self.classifier(self.backbone(x).unsqueeze(1).repeat(1, 3, 1)) / 2.0

    source = Model("classifier", Pooling())
    with torch.no_grad():
        assert_scored_on(source, "classifier.out_proj", source.classifier.dense(source.backbone(X)).tanh())


def test_classifier_that_returns_no_tensor():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(D, Z)

        def forward(self, x):
            return {"out": self.out(x)}

    class Model(Net):
        def forward(self, x):
            return super().forward(x)["out"]

    source = Model("classifier", Named())
    assert_scored_on(source, "classifier.out", given_to(source, "classifier"))


def test_head_of_one_number_for_each_image_is_none():
    class Score(nn.Module):
        def forward(self, x):
            return x.mean(1)

    class Model(Net):
        def forward(self, x):
            h = self.backbone(x)
            return self.out(h) * self.head(h).unsqueeze(1).sigmoid()

    source = Model("head", Score())
    source.out = nn.Linear(D, Z)
    assert_scored_on(source, "out", given_to(source, "head"))


def test_convolution_with_as_many_features_as_rows_and_columns():
    """``[N, d, H, W]`` with d = H = W: which dimension holds the features cannot be told by size."""
    inputs = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(4))
    source = nn.Sequential(nn.Tanh(), nn.Conv2d(3, Z, 1))
    features = inputs.tanh().movedim(1, -1).reshape(45, 3)
    target = Y[:45].reshape(5, 3, 3)
    assert_scores_of(run(source, target, inputs, head="1"), features, target.reshape(45))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated.*")
def test_scripted_source_with_a_layer_of_a_common_name_has_no_features():
    """Scripted layers take no hooks."""
    module = nn.Sequential()
    module.backbone, module.fc = nn.Linear(5, 8), nn.Linear(8, 6)
    labels = torch.arange(30) % 3
    report = score(torch.jit.script(module.eval()), [(torch.randn(30, 5), labels)], 3, progress=False)
    assert (report.feature_layer, report.num_features) == ("(logits)", 6)
