"""Source models for tests of the scoring pass, with what their heads are given worked out without hooks."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import score
from lightning_leep.functional import h_score, linear_probe, log_me
from lightning_leep.records.report_notes import LOGITS
from lightning_leep.scoring.head import capture_head_input

C, Z, D = 3, 7, 6
X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
Y = torch.randint(C, (60,), generator=torch.Generator().manual_seed(1))


def backbone():
    return nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, D))


class Parts(nn.Module):
    """Layers by name, and the function of the module and its input that is its forward pass."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.function(self, x)


class Net(nn.Module):
    """A backbone, then what ``head`` names; tells what the head was given."""

    def __init__(self, name: str, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone()
        self.name = name
        setattr(self, name, head)

    def forward(self, x):
        return getattr(self, self.name)(self.backbone(x))


def sequential_classifier():
    """As in VGG: the last layer is ``classifier.3``."""
    return nn.Sequential(nn.Linear(D, D), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(D, Z))


class LowRank(nn.Module):
    """A linear layer with an adapter of rank 2, as PEFT builds it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


class Hidden(nn.Module):
    """A nonlinearity, then what is named."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, layer)

    def forward(self, x):
        return getattr(self, self.name)(x.tanh())


def given_to(source, layer):
    """Input of one layer, worked out layer by layer without hooks."""
    with torch.no_grad():
        values = source.backbone(X)
        if layer == source.name:
            return values
        for name, child in source.classifier.eval().named_children():
            if layer == f"classifier.{name}":
                return values.clone()
            values = child(values)
    raise AssertionError(layer)


def run(source, target=Y, inputs=X, **kwargs):
    """In three batches; without what takes time and does not depend on the head."""
    options = {"num_permutations": 0, "layers": None, "progress": False, **kwargs}
    return score(source, DataLoader(TensorDataset(inputs, target), batch_size=25), C, **options)


def captured(source, head=None):
    """What the head is found to be given in one batch of all rows, and its name."""
    with capture_head_input(source, head) as capture, torch.no_grad():
        return capture.take(source(X), Y), capture.name


def assert_scores_of(report, features, target=Y):
    """The feature scores of the report are those of ``features``, to the precision of float32 rows."""
    features = features.double()
    assert report.h_score == pytest.approx(h_score(features, target, C).item(), rel=1e-5)
    assert report.log_me == pytest.approx(log_me(features, target, C).item(), rel=1e-5)
    expected = linear_probe(features, target, C)
    assert report.linear_probe_accuracy == pytest.approx(expected.accuracy.item(), abs=1e-9)
    assert report.linear_probe_log_likelihood == pytest.approx(expected.log_likelihood.item(), rel=1e-5)
    assert report.num_features == features.shape[1]


def assert_scored_on(source, layer, features, **kwargs):
    report = run(source, **kwargs)
    assert report.feature_layer == layer
    assert_scores_of(report, features)


def assert_scored_on_logits(source, **kwargs):
    report = run(source, **kwargs)
    assert report.feature_layer == LOGITS
    with torch.no_grad():
        assert_scores_of(report, source(X))
    assert any("computed from the logits" in note for note in report.notes)


def hooks(source):
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in source.modules())
