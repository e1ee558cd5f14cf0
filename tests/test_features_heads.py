"""The head is the layer that makes the source's outputs: what only looks like one is not taken for it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_leep.features import capture_head_input
from lightning_leep.notes import LOGITS
from tests.sources import D, Net, X, Y, Z, assert_scores_of, given_to, run, sequential_classifier


def assert_scored_on_logits(source, **kwargs):
    report = run(source, **kwargs)
    assert report.feature_layer == LOGITS
    with torch.no_grad():
        assert_scores_of(report, source(X))
    assert any("made from its logits" in note for note in report.notes)


def assert_scored_on(source, layer, features, **kwargs):
    report = run(source, **kwargs)
    assert report.feature_layer == layer
    assert_scores_of(report, features)


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


@pytest.mark.parametrize(("name", "pool_first"), [("head", False), ("conv", False), ("conv", True)])
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


class LastStepByHand(nn.Module):
    """A hidden linear layer, then a product with a parameter (``F.linear``, or CLIP's ``x @ proj``)."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.hidden, self.functional = nn.Linear(5, D), functional
        self.projection = nn.Parameter(torch.randn(Z, D, generator=torch.Generator().manual_seed(2)))

    def forward(self, x):
        h = self.hidden(x).relu()
        return F.linear(h, self.projection) if self.functional else h @ self.projection.T


@pytest.mark.parametrize("functional", [True, False])
def test_hidden_layer_before_a_product_with_a_parameter_is_no_head(functional):
    assert_scored_on_logits(LastStepByHand(functional))


class LowRank(nn.Module):
    """A linear layer with an adapter of rank 2, as PEFT builds it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


@pytest.mark.parametrize("name", ["fc", "classifier", "head", "linear"])
def test_adapter_of_the_classifier_is_no_head(name):
    """The classifier as a whole is."""
    source = Net(name, LowRank(nn.Linear(D, Z)))
    assert_scored_on(source, name, given_to(source, name))


def test_adapter_of_a_layer_of_any_other_name_is_no_head():
    assert_scored_on_logits(Net("out", LowRank(nn.Linear(D, Z))))
    source = Net("out", LowRank(nn.Linear(D, Z)))
    assert_scored_on(source, "out", given_to(source, "out"), head="out")


def test_adapter_of_the_last_layer_of_a_sequential_classifier_is_no_head():
    classifier = sequential_classifier()
    classifier[3] = LowRank(classifier[3])
    source = Net("classifier", classifier)
    assert_scored_on(source, "classifier", given_to(source, "classifier"))


def test_sequential_head_of_as_wide_hidden_layers_ends_in_the_head():
    """One after the other is not one beside the other."""
    classifier = nn.Sequential(nn.Linear(D, Z), nn.Tanh(), nn.Linear(Z, Z))
    source = Net("classifier", classifier)
    assert_scored_on(source, "classifier.2", given_to(source, "classifier.2"))


class Pooling(nn.Module):
    """As RoBERTa's ``classifier``: is given all tokens, of which it takes the first."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.out_proj = nn.Linear(D, D), nn.Linear(D, Z)

    def forward(self, tokens):
        return self.out_proj(self.dense(tokens[:, 0]).tanh())


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_last_linear_layer_inside_a_classifier_that_pools(scale):
    class Model(Net):
        def forward(self, x):
            return self.classifier(self.backbone(x).unsqueeze(1).repeat(1, 3, 1)) / scale

    source = Model("classifier", Pooling())
    with torch.no_grad():
        assert_scored_on(source, "classifier.out_proj", source.classifier.dense(source.backbone(X)).tanh())


class TwoHeads(Net):
    """As DeiT with distillation: the mean of two heads, of which one has the common name."""

    def __init__(self) -> None:
        super().__init__("head", nn.Linear(D, Z))
        self.head_dist = nn.Linear(5, Z)

    def forward(self, x):
        return (super().forward(x) + self.head_dist(x)) / 2


@pytest.mark.parametrize(("wrap", "name"), [(lambda m: m, "head"), (nn.Sequential, "0.head")])
def test_common_name_counts_within_a_wrapper_as_at_the_top(wrap, name):
    source = TwoHeads()
    assert_scored_on(wrap(source), name, given_to(source, "head"))


def test_common_name_counts_within_data_parallel():
    source = TwoHeads()
    assert_scored_on(nn.DataParallel(source), "module.head", given_to(source, "head"))


class Auxiliary(nn.Module):
    """A linear layer without use runs last, so that the head has to be known by its name."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.projection = net, nn.Linear(Z, 2)

    def forward(self, x):
        logits = self.net(x)
        self.projection(logits)
        return logits


def test_the_least_deep_of_modules_of_a_common_name():
    source = Net("fc", nn.Linear(D, Z))
    source.backbone = nn.Sequential(nn.Linear(5, D), Net("fc", nn.Linear(D, D)))
    source.backbone[1].backbone = nn.Tanh()
    assert_scored_on(Auxiliary(source), "net.fc", given_to(source, "fc"))


def test_the_last_of_modules_of_a_common_name_that_lie_as_deep():
    first, source = Net("fc", nn.Linear(D, 5)), Net("fc", nn.Linear(D, Z))
    with torch.no_grad():
        features = source.backbone(first(X))
    assert_scored_on(Auxiliary(nn.Sequential(first, source)), "net.1.fc", features)


def test_the_last_to_run_of_two_common_names():
    source = Net("fc", nn.Linear(D, Z))
    calibrated = nn.Sequential()
    calibrated.linear, calibrated.tanh, calibrated.head = source, nn.Tanh(), nn.Linear(Z, Z)
    with torch.no_grad():
        assert_scored_on(Auxiliary(calibrated), "net.head", source(X).tanh())


def test_adapter_of_a_classifier_of_tokens():
    """``[N, T, d]`` goes in, ``[N, T, Z]`` comes out."""

    class Tagger(Net):
        def forward(self, x):
            return super().forward(x).movedim(-1, 1)

    source = Tagger("classifier", LowRank(nn.Linear(D, Z)))
    report = run(source, Y.reshape(12, 5), X.reshape(12, 5, 5))
    assert report.feature_layer == "classifier"
    assert_scores_of(report, given_to(source, "classifier"))


class Hidden(nn.Module):
    """A nonlinearity, then what is named."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, layer)

    def forward(self, x):
        return getattr(self, self.name)(x.tanh())


def test_head_within_a_classifier():
    """Both make the outputs and neither is a linear layer: the one that starts last is the last step."""
    source = Net("classifier", Hidden("head", LowRank(nn.Linear(D, Z))))
    assert_scored_on(source, "classifier.head", given_to(source, "classifier").tanh())


def test_layer_of_as_many_outputs_elsewhere_is_not_added():
    source = Net("out", nn.Linear(D, Z))
    chain = nn.Sequential(source, Hidden("last", nn.Linear(Z, Z)))
    with torch.no_grad():
        assert_scored_on(chain, "1.last", source(X).tanh())


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


def test_named_head_that_does_not_run_for_every_batch():
    """The features of an earlier batch are not those of a later one."""

    class Sometimes(Net):
        def forward(self, x):
            return super().forward(x) if x[0, 0] > 0 else x[:, [0]].expand(-1, Z)

    source = Sometimes("fc", nn.Linear(D, Z))
    with capture_head_input(source, "fc") as capture, torch.no_grad():
        assert capture.take(source(X.abs()), Y) is not None
        with pytest.raises(ValueError, match="'fc' did not run"):
            capture.take(source(-X.abs()), Y)


def test_what_ran_for_an_earlier_batch_says_nothing_of_this_one():
    """Two linear layers that are added make no features; one of them alone does."""

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.first, self.second = True, nn.Linear(D, Z), nn.Linear(D, Z)

        def forward(self, x):
            return self.first(x) + self.second(x) if self.both else self.second(x)

    source = Net("out", Parallel())
    with capture_head_input(source) as capture, torch.no_grad():
        assert capture.take(source(X), Y) is None
        source.out.both = False
        assert torch.equal(capture.take(source(X), Y), given_to(source, "out"))


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


class Twice(Net):
    """Less what it returns for a baseline: features of the last run say nothing of the image."""

    def forward(self, x):
        return super().forward(x) - super().forward(torch.zeros_like(x))


def test_head_that_runs_twice_has_no_features():
    source = Twice("fc", nn.Linear(D, Z))
    assert_scored_on_logits(source)
    with pytest.raises(ValueError, match="`head` must name a layer .* 'fc' ran 2 times for one batch"):
        run(source, head="fc")


def test_runs_are_counted_by_batch():
    source = Net("fc", nn.Linear(D, Z))
    for head in (None, "fc"):
        with capture_head_input(source, head) as capture, torch.no_grad():
            for _ in range(3):
                assert torch.equal(capture.take(source(X), Y), given_to(source, "fc"))


class Aliased(Net):
    """The head has a second name."""

    def __init__(self) -> None:
        super().__init__("fc", nn.Linear(D, Z))
        self.last = self.fc


def test_head_named_by_any_of_its_names():
    source = Aliased()
    for name in ("fc", "last"):
        assert_scored_on(source, name, given_to(source, "fc"), head=name)
    assert_scored_on(source, "fc", given_to(source, "fc"))


def test_convolution_with_as_many_features_as_rows_and_columns():
    """``[N, d, H, W]`` with d = H = W: which dimension holds the features cannot be told by size."""
    inputs = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(4))
    source = nn.Sequential(nn.Tanh(), nn.Conv2d(3, Z, 1))
    features = inputs.tanh().movedim(1, -1).reshape(45, 3)
    target = Y[:45].reshape(5, 3, 3)
    assert_scores_of(run(source, target, inputs, head="1"), features, target.reshape(45))
