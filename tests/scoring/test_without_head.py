"""A source without a head gives features: these are scored, LEEP is left out, and readers of a report live with it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_leep import TransferabilityReport, score, score_outputs
from lightning_leep.forecast import forecast_accuracy, forecast_convergence
from lightning_leep.records.report import OUTPUT_SCORES, check_report
from lightning_leep.tensorboard import report_markdown
from tests._helpers.feature_references import reference_h_score, reference_probe

C, D, N = 3, 6, 120
Y = torch.randint(C, (N,), generator=torch.Generator().manual_seed(0))
X = torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + nn.functional.one_hot(Y, D)
BATCHES = list(zip(X.split(50), Y.split(50), strict=True))


def run(source=lambda x: x, **options):
    return score(source, BATCHES, C, progress=False, head=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrap", "memory"),
    [
        (lambda x: x, "device"),
        (lambda x: SimpleNamespace(pooler_output=x, last_hidden_state=x.unsqueeze(1)), "cpu"),
        (lambda x: {"image_embeds": x, "pooler_output": x[:, :2]}, "second_pass"),
        (lambda x: (None, x), "device"),
    ],
)
def test_features_are_scored_and_outputs_are_not(wrap, memory):
    report = run(wrap, memory=memory)
    h_score = reference_h_score(X.numpy(), Y.numpy(), shrinkage=True)
    probe = reference_probe(X.numpy(), Y.numpy())["linear_probe_accuracy"]
    assert report.num_features == D
    assert report.h_score == pytest.approx(h_score, rel=1e-9)
    assert report.linear_probe_accuracy == pytest.approx(probe, abs=1e-12)
    assert [getattr(report, name) for name in OUTPUT_SCORES] == [None] * len(OUTPUT_SCORES)
    assert (report.nce, report.joint, report.permutation_p_value) == (None, None, None)
    assert report.notes == ("The source has no head (`head=False`): LEEP, NCE and the EEP are left out.",)
    assert report.class_counts == tuple(torch.bincount(Y).tolist())


def test_cached_features():
    cached, ran = score_outputs(None, Y, C, features=X.numpy()).scalars(), run().scalars()
    assert set(cached) == set(ran)
    for name in set(ran) - {"seconds", "samples_per_second"}:
        assert cached[name] == pytest.approx(ran[name], abs=1e-12), name
    with pytest.raises(ValueError, match="`logits` or `features` must be given"):
        score_outputs(None, Y, C)


def test_report_survives_json_and_checks():
    report = run(nn.Linear(D, C, dtype=torch.float64))  # what would be a head otherwise
    assert report.feature_layer == "(the source's outputs)"
    restored = TransferabilityReport.from_json(report.to_json())
    assert restored == report
    check_report(restored)
    values = report.to_dict()
    with pytest.raises(TypeError, match="`leep`|`num_source_classes`"):
        check_report(TransferabilityReport(**{**values, "num_source_classes": 5, "class_counts": report.class_counts}))


def test_text_and_forecasts():
    report = run()
    markdown = report_markdown(report, forecast_accuracy(report), source_name="dino")
    assert "The source has no head, so there is no LEEP" in markdown
    assert "`dino` (without a head)" in markdown
    assert "linear probe accuracy" in markdown
    assert "| LEEP" not in markdown
    assert forecast_accuracy(report).value == report.linear_probe_accuracy
    assert forecast_convergence(report, ()) is None
    assert "LEEP  " not in str(report)
    assert "num_features" in report.describe()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (lambda x: SimpleNamespace(last_hidden_state=x), TypeError, r"`source` must return a tensor .*\[N, d\]"),
        (lambda x: (x, x), TypeError, "got tuple of Tensor, Tensor"),
        (lambda x: x[:, :, None, None].expand(-1, -1, 2, 2), ValueError, "one label for each row"),
        (lambda x: x.repeat(1, 683), ValueError, "at most 4096 features, got 4098"),
    ],
)
def test_outputs_without_features_are_refused(source, error, message):
    with pytest.raises(error, match=message):
        run(source)


def test_bad_labels_are_refused():
    with pytest.raises(ValueError, match="labels in 0..1"):
        score(lambda x: x, BATCHES, 2, progress=False, head=False)


def test_without_the_option_a_source_without_a_head_is_asked_about():
    class Backbone(nn.Module):
        num_classes = 0

        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="`num_classes` is 0.*Pass `head=False`"):
        score(Backbone(), BATCHES, C, progress=False)
    assert score(Backbone(), BATCHES, C, progress=False, head=False).num_features == D
    with pytest.raises(TypeError, match="pass `head=False`"):
        score(lambda x: SimpleNamespace(pooler_output=x), BATCHES, C, progress=False)


def test_head_that_was_taken_off_is_told():
    class TakenOff(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Identity()

        def forward(self, x):
            return self.fc(x)

    assert any("(fc) is nn.Identity" in n for n in score(TakenOff(), BATCHES, C, progress=False).notes)
    assert not any("nn.Identity" in n for n in score(TakenOff(), BATCHES, C, progress=False, head=False).notes)
