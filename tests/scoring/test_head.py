"""Features are what the source's last layer was really given: which layer that is, and what becomes of it."""

import pytest
import torch
from torch import nn

from lightning_leep.scoring.head import capture_head_input
from tests._helpers.head_sources import (
    D,
    LowRank,
    Net,
    X,
    Y,
    Z,
    assert_scored_on,
    captured,
    given_to,
    hooks,
    run,
    sequential_classifier,
)


@pytest.mark.parametrize("layer", ["classifier.0", "classifier.1", "classifier"])
def test_head_named_by_the_user(layer):
    """``classifier.1`` works in place: what it was given is not what is left of it."""
    source = Net("classifier", sequential_classifier()).eval()
    assert_scored_on(source, layer, given_to(source, layer), head=layer)


def test_adapter_named_by_the_user():
    source = Net("out", LowRank(nn.Linear(D, Z)))
    assert_scored_on(source, "out", given_to(source, "out"), head="out")


def test_unknown_name_lists_the_linear_layers():
    source = Net("classifier", sequential_classifier())
    with pytest.raises(ValueError, match=r"got .*\['backbone.0', 'backbone.2', 'classifier.0', 'classifier.3'\]"):
        run(source, head="classifier.6")
    with pytest.raises(ValueError, match=r"got 'fc'. Its linear layers: \[\]"):
        run(lambda x: source(x), head="fc")
    assert hooks(source) == 0


def test_head_named_by_any_of_its_names():
    source = Net("fc", nn.Linear(D, Z))
    source.last = source.fc
    for head in ("fc", "last"):
        assert_scored_on(source, head, given_to(source, "fc"), head=head)
    assert captured(source)[1] == "fc"


# -- from batch to batch -----------------------------------------------------------------------------------------------


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def test_named_head_that_gives_no_features():
    class Twice(Net):
        def forward(self, x):
            return super().forward(x) - super().forward(torch.zeros_like(x))

    with pytest.raises(ValueError, match="`head` must name a layer .* 'fc' ran 2 times for one batch"):
        run(Twice("fc", nn.Linear(D, Z)), head="fc")
    unused = Net("out", nn.Linear(D, Z))
    unused.head = nn.Linear(D, Z)
    with pytest.raises(ValueError, match=r"`head` must name a layer .* 'head' did not run \(if torch.compile compiled"):
        run(unused, head="head")
    pixels = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 1)), nn.Linear(1, Z), nn.Unflatten(0, (-1, 5)), Mean())
    with pytest.raises(ValueError, match=r"25\] labels, but '2' was given torch.float32 of shape \[125, 1\]"):
        run(pixels, head="2")
    embedding = nn.Sequential(nn.EmbeddingBag(9, D), nn.Linear(D, Z))
    with pytest.raises(ValueError, match=r"'0' was given torch.int64 of shape \[25, 5\]"):
        run(embedding, inputs=torch.randint(9, X.shape), head="0")


class Sometimes(Net):
    """Goes past its head in the last batch, so that a layer of the backbone, as wide, is the last to run."""

    def __init__(self) -> None:
        super().__init__("fc", nn.Linear(D, Z))
        self.backbone = nn.Sequential(nn.Linear(5, D), nn.Tanh(), nn.Linear(D, D))

    def forward(self, x):
        return super().forward(x) if len(x) == 25 else self.backbone(x) @ self.fc.weight.T


@pytest.mark.parametrize(
    ("head", "said"), [(None, "features for one batch and none for another"), ("fc", "'fc' did not run")]
)
def test_head_that_does_not_run_for_every_batch(head, said):
    with pytest.raises(ValueError, match=said):
        run(Sometimes(), head=head)


def test_features_outlive_what_the_model_does_next():
    """A view of all tokens is not kept alive, and memory that the model uses again is not read."""

    class FirstToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.buffer = Net("fc", nn.Linear(D, Z)), torch.empty(60, 200, D)

        def forward(self, x):
            tokens = self.buffer[: len(x)]
            tokens.copy_(self.net.backbone(x).unsqueeze(1))
            return self.net.fc(tokens[:, 0])

    source = FirstToken()
    assert captured(source)[0].untyped_storage().nbytes() == 60 * D * 4
    assert_scored_on(source, "net.fc", given_to(source.net, "fc"))


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


@pytest.mark.parametrize("head", [None, "fc"])
def test_hooks_are_removed_and_others_stay(head):
    source = Net("fc", nn.Linear(D, Z))
    source.fc.register_forward_pre_hook(lambda module, args: None)
    run(source, head=head, layers="auto")
    assert hooks(source) == 1
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(source, inputs=X[:, :3], head=head, layers="auto")
    assert hooks(source) == 1


def test_gradients_do_not_hang_on_the_features():
    source = Net("fc", nn.Linear(D, Z))
    with capture_head_input(source) as capture:
        assert not capture.take(source(X), Y).requires_grad
        assert capture.take(source(X)[:0], Y[:0]) is None  # 60 rows of features, no label
        source(X)
        assert capture.take(torch.zeros(60, Z), Y) is not None
        assert capture.take(torch.zeros(60, Z), Y) is None  # handed over once
