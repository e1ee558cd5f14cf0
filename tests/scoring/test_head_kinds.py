"""The head is the layer that makes the source's outputs: what only looks like one is not taken for it."""

import pytest
import torch
from torch import nn

from tests._helpers.head_sources import (
    D,
    Hidden,
    LowRank,
    Net,
    Parts,
    X,
    Y,
    Z,
    assert_scored_on,
    assert_scored_on_logits,
    assert_scores_of,
    backbone,
    captured,
    run,
    sequential_classifier,
)


def head(num_inputs=D):
    return nn.Linear(num_inputs, Z)


def two_heads():
    """As DeiT with distillation: the mean of two heads, of which one has the common name."""
    return Parts(
        lambda s, x: (s.head(s.backbone(x)) + s.head_dist(x)) / 2, backbone=backbone(), head=head(), head_dist=head(5)
    )


def auxiliary(net):
    """A linear layer without use runs last, so that the head has to be known by its name."""

    def forward(s, x):
        s.projection(logits := s.net(x))
        return logits

    return Parts(forward, net=net, projection=nn.Linear(Z, 2))


def fc_below_fc():
    return Parts(lambda s, x: s.fc(s.backbone(x)), backbone=Net("fc", nn.Linear(D, D)), fc=head())


def calibrated():
    return Parts(lambda s, x: s.head(s.linear(x).tanh()), linear=Net("fc", head()), head=head(Z))


def pooling_classifier():
    """As RoBERTa's ``classifier``: is given all tokens, of which it takes the first."""
    parts = Parts(lambda s, x: s.out_proj(s.dense(x[:, 0]).tanh()), dense=nn.Linear(D, D), out_proj=head())
    return Parts(
        lambda s, x: s.classifier(s.backbone(x).unsqueeze(1).expand(-1, 3, -1)) / 2,
        backbone=backbone(),
        classifier=parts,
    )


def gated_by_one_number():
    """What has a common name gives one number for each image."""
    score = Parts(lambda s, x: x.mean(1))
    return Parts(
        lambda s, x: s.out(h := s.backbone(x)) * s.head(h).unsqueeze(1).sigmoid(),
        backbone=backbone(),
        out=head(),
        head=score,
    )


def two_heads_of(scale):
    """Two heads on two tokens, as a distilled vision transformer has them, added or averaged."""
    return Parts(
        lambda s, x: (s.head(s.first(x).tanh()) + s.head_dist(s.second(x).tanh())) / scale,
        first=nn.Linear(5, D),
        second=nn.Linear(5, D),
        head=head(),
        head_dist=head(),
    )


def side_by_side(s):
    return torch.cat([s.first(X).tanh(), s.second(X).tanh()], dim=1)


#: By what is special: how the source is made, the layer that is found, and what goes into it.
HEADS = {
    "a common name": (lambda: Net("fc", head()), "fc", lambda s: s.backbone(X)),
    "any other name": (lambda: Net("top", head()), "top", lambda s: s.backbone(X)),
    "called with keywords": (
        lambda: Parts(lambda s, x: s.fc(input=s.backbone(x)), backbone=backbone(), fc=head()),
        "fc",
        lambda s: s.backbone(X),
    ),
    "a common name that never runs": (
        lambda: Parts(lambda s, x: s.out(s.backbone(x)), backbone=backbone(), out=head(), head=head()),
        "out",
        lambda s: s.backbone(X),
    ),
    "a hidden layer of a common name": (
        lambda: Parts(lambda s, x: s.out(s.fc(s.backbone(x))), backbone=backbone(), fc=nn.Linear(D, D), out=head()),
        "out",
        lambda s: s.fc(s.backbone(X)),
    ),
    "in a wrapper": (lambda: nn.Sequential(two_heads()), "0.head", lambda s: s[0].backbone(X)),
    "in DataParallel": (lambda: nn.DataParallel(two_heads()), "module.head", lambda s: s.module.backbone(X)),
    "the least deep of a common name": (lambda: auxiliary(fc_below_fc()), "net.fc", lambda s: s.net.backbone(X)),
    "the last of those as deep": (
        lambda: auxiliary(nn.Sequential(Net("fc", nn.Linear(D, 5)), Net("fc", head()))),
        "net.1.fc",
        lambda s: s.net[1].backbone(s.net[0](X)),
    ),
    "the last to run of two common names": (
        lambda: auxiliary(calibrated()),
        "net.head",
        lambda s: s.net.linear(X).tanh(),
    ),
    # Both make the outputs and neither is a linear layer: the one that starts last is the last step.
    "a head within a classifier": (
        lambda: Net("classifier", Hidden("head", LowRank(head()))),
        "classifier.head",
        lambda s: s.backbone(X).tanh(),
    ),
    "a classifier that pools": (
        pooling_classifier,
        "classifier.out_proj",
        lambda s: s.classifier.dense(s.backbone(X)).tanh(),
    ),
    "a classifier that returns no tensor": (
        lambda: Parts(
            lambda s, x: s.classifier(s.backbone(x))["out"],
            backbone=backbone(),
            classifier=Parts(lambda s, x: {"out": s.out(x)}, out=head()),
        ),
        "classifier.out",
        lambda s: s.backbone(X),
    ),
    "a common name that gives one number": (gated_by_one_number, "out", lambda s: s.backbone(X)),
    "an adapter of the classifier": (lambda: Net("fc", LowRank(head())), "fc", lambda s: s.backbone(X)),
    "an adapter in a sequential classifier": (
        lambda: Net("classifier", nn.Sequential(*sequential_classifier()[:3], LowRank(head())).eval()),
        "classifier",
        lambda s: s.backbone(X),
    ),
    "two heads that are added": (lambda: two_heads_of(1), "head + head_dist", side_by_side),
    "two heads that are averaged": (
        lambda: nn.Sequential(two_heads_of(2)),
        "0.head + 0.head_dist",
        lambda s: side_by_side(s[0]),
    ),
    "the mean over two views": (
        lambda: Parts(
            lambda s, x: (s.out(s.backbone(x)) + s.out(s.backbone(x.flip(1)))) / 2, backbone=backbone(), out=head()
        ),
        "out",
        lambda s: (s.backbone(X) + s.backbone(X.flip(1))) / 2,
    ),
    "the last of two runs": (
        lambda: Parts(lambda s, x: s.fc(s.backbone(x + s.fc(s.backbone(x))[:, :5])), backbone=backbone(), fc=head()),
        "fc",
        lambda s: s.backbone(X + s.fc(s.backbone(X))[:, :5]),
    ),
    # One after the other is not one beside the other.
    "hidden layers as wide": (
        lambda: Net("classifier", nn.Sequential(head(), nn.Tanh(), head(Z))),
        "classifier.2",
        lambda s: s.classifier[:2](s.backbone(X)),
    ),
    "as many outputs elsewhere": (
        lambda: nn.Sequential(Net("out", head()), Hidden("last", head(Z))),
        "1.last",
        lambda s: s[0](X).tanh(),
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_head_is_found(name):
    make, layer, features = HEADS[name]
    source = make()
    with torch.no_grad():
        expected = features(source)
    assert_scored_on(source, layer, expected)
    torch.testing.assert_close(captured(source)[0], expected)


# -- convolutions ------------------------------------------------------------------------------------------------------


def channels(s, x):
    """``[N, 5]`` -> ``[N, D, 5]``, weighted by a squeeze-and-excitation gate of linear layers."""
    h = s.conv(x.unsqueeze(1))
    return h * s.gate(h.mean(2)).unsqueeze(2)


def convolutional(name, forward, **parts):
    """Its head is a 1 x 1 convolution. The gate's last linear layer runs last, and has a row for each label."""
    gate = nn.Sequential(nn.Linear(D, 2), nn.ReLU(), nn.Linear(2, D), nn.Sigmoid())
    return Parts(forward, conv=nn.Conv1d(1, D, 3, padding=1), gate=gate, **{name: nn.Conv1d(D, Z, 1)}, **parts)


@pytest.mark.parametrize("name", ["fc", "classifier", "head", "linear"])
def test_convolution_under_a_common_name_that_is_given_pooled_channels(name):
    def forward(s, x):
        pooled = channels(s, x).mean(2, keepdim=True)  # [N, D, 1]
        return s.get_submodule(name)(pooled).flatten(1) * s.after(x).sigmoid()

    source = convolutional(name, forward, after=head(5))  # another gate has as many channels as there are classes
    with torch.no_grad():
        assert_scored_on(source, name, channels(source, X).mean(2))


#: Sources whose last layer cannot be seen, or is none of those that look like it.
HEADLESS = {
    "a gate before a head that pools later": lambda: convolutional("head", lambda s, x: s.head(channels(s, x)).mean(2)),
    "a gate before a convolution of another name": lambda: convolutional(
        "last", lambda s, x: s.last(channels(s, x).mean(2, keepdim=True)).flatten(1)
    ),
    "a hidden layer before a product with a parameter": lambda: Parts(  # as CLIP's ``x @ proj``
        lambda s, x: s.hidden(x).relu() @ s.values.weight.T, hidden=nn.Linear(5, D), values=nn.Embedding(Z, D)
    ),
    "an adapter of a layer of no common name": lambda: Net("out", LowRank(head())),
    # Less what it returns for a baseline: features of the last run say nothing of the image.
    "a head that runs twice": lambda: Parts(
        lambda s, x: s.fc(s.backbone(x)) - s.fc(s.backbone(torch.zeros_like(x))), backbone=backbone(), fc=head()
    ),
}


@pytest.mark.parametrize("name", HEADLESS)
def test_what_is_no_head_is_not_taken_for_one(name):
    assert_scored_on_logits(HEADLESS[name]())


def test_convolution_with_as_many_features_as_rows_and_columns():
    """``[N, d, H, W]`` with d = H = W: which dimension holds the features cannot be told by size."""
    inputs = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(4))
    source = nn.Sequential(nn.Tanh(), nn.Conv2d(3, Z, 1))
    features = inputs.tanh().movedim(1, -1).reshape(45, 3)
    target = Y[:45].reshape(5, 3, 3)
    assert_scores_of(run(source, target, inputs, head="1"), features, target.reshape(45))
