"""Features of sources of every shape: none at all, tokens, dense prediction, too wide, compiled."""

import pytest
import torch
from torch import nn

from lightning_leep.functional import h_score, log_me
from lightning_leep.records.report_notes import LOGITS
from tests._helpers.head_sources import C, D, LowRank, Net, X, Y, Z, assert_scores_of, given_to, hooks, run


def test_source_that_is_a_linear_layer():
    report = run(nn.Linear(5, Z))
    assert report.feature_layer == "(the source itself)"
    assert_scores_of(report, X)


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


def test_pooled_features_do_not_pass_for_those_of_dense_labels():
    """A linear layer inside a segmentation model (squeeze and excitation) has no row for each pixel."""

    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.out = nn.Linear(5, 5), nn.Conv1d(5, Z, 1)

        def forward(self, x):  # [N, 5, T]
            return self.out(x * self.gate(x.mean(dim=2)).unsqueeze(2))

    source, inputs = Segmenter(), X.reshape(12, 5, 5)
    report = run(source, Y.reshape(12, 5), inputs)
    assert report.feature_layer == LOGITS
    with torch.no_grad():
        assert_scores_of(report, source(inputs).movedim(1, -1).reshape(60, Z))


def test_classes_that_are_switched_off_say_nothing():
    net = Net("fc", nn.Linear(D, Z))
    off = torch.tensor([False, True] * 3 + [False])
    report = run(lambda x: net(x).detach().masked_fill(off, -torch.inf))
    expected = net(X).detach()[:, ~off]
    assert report.h_score_unshrunk == pytest.approx(h_score(expected, Y, C, shrinkage=False).item(), rel=1e-5)
    assert report.log_me == pytest.approx(log_me(expected, Y, C).item(), rel=1e-5)


def test_features_that_are_too_wide_give_way_to_the_logits():
    wide = nn.Sequential(nn.Linear(5, 4097), nn.Linear(4097, Z))
    report = run(wide)
    assert (report.feature_layer, report.num_features) == (LOGITS, Z)
    assert any("wider than 4096" in note for note in report.notes)
    report = run(lambda x: wide[0](x).detach())
    assert (report.feature_layer, report.num_features, report.h_score, report.linear_probe_accuracy) == (None,) * 4
    assert any("too wide" in note for note in report.notes)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated.*")
def test_scripted_source_with_a_layer_of_a_common_name_has_no_features():
    """Scripted layers take no hooks."""
    module = nn.Sequential()
    module.backbone, module.fc = nn.Linear(5, 8), nn.Linear(8, Z)
    report = run(torch.jit.script(module.eval()))
    assert (report.feature_layer, report.num_features) == (LOGITS, Z)


@pytest.mark.slow
@pytest.mark.parametrize("before", [False, True])
def test_compiled_source_is_heard_or_said_not_to_be(before):
    """A module that was compiled and has run does not call hooks that came later."""
    torch._dynamo.reset()
    source = Net("fc", nn.Linear(D, Z)).eval()
    compiled = torch.compile(source, backend="eager")
    if before:
        with torch.no_grad():
            compiled(X[:25])
    report = run(compiled)
    if report.feature_layer == "_orig_mod.fc":
        assert_scores_of(report, given_to(source, "fc"))
    else:
        assert before
        assert any("torch.compile may hide" in note for note in report.notes)
        assert_scores_of(report, source(X).detach())
    assert hooks(compiled) == 0
