"""Which of several layers is the head, by their names and by when and how often they run."""

import pytest
import torch
from torch import nn

from lightning_leep.scoring.head import capture_head_input
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
    given_to,
    run,
)


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


def test_head_within_a_classifier():
    """Both make the outputs and neither is a linear layer: the one that starts last is the last step."""
    source = Net("classifier", Hidden("head", LowRank(nn.Linear(D, Z))))
    assert_scored_on(source, "classifier.head", given_to(source, "classifier").tanh())


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
    """Two linear layers of which one is subtracted make no features; one of them alone does."""

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.first, self.second = True, nn.Linear(D, Z), nn.Linear(D, Z)

        def forward(self, x):
            return self.first(x) - self.second(x) if self.both else self.second(x)

    source = Net("out", Parallel())
    with capture_head_input(source) as capture, torch.no_grad():
        assert capture.take(source(X), Y) is None
        source.out.both = False
        assert torch.equal(capture.take(source(X), Y), given_to(source, "out"))


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
