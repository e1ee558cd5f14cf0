"""Heads that run on every token, on several views, or beside another head; and heads that look new."""

import pytest
import torch
from torch import nn

from lightning_leep.forecast.accuracy import forecast_accuracy
from lightning_leep.records.report_notes import LOGITS
from lightning_leep.scoring.head import looks_new
from tests._helpers.head_sources import C, D, Y, Z, assert_scores_of, run

TOKENS = torch.randn(60, 4, D, generator=torch.Generator().manual_seed(2))
LENGTHS = torch.randint(1, 5, (60,), generator=torch.Generator().manual_seed(3))
ROWS = torch.arange(60)


class Decoder(nn.Module):
    """``score`` runs on all tokens; the answer is that of the last one of each text."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(D, Z, bias=False)

    def forward(self, batch):
        logits = self.score(batch[:, :-1].reshape(len(batch), 4, D))
        return logits[torch.arange(len(batch)), batch[:, -1].long() - 1]


def decoder_batch():
    return torch.cat([TOKENS.flatten(1), LENGTHS.unsqueeze(1).float()], dim=1)


@pytest.mark.parametrize("head", [None, "score"])
def test_features_of_the_token_that_became_the_answer(head):
    report = run(Decoder(), inputs=decoder_batch(), head=head)
    assert report.feature_layer == "score"
    assert_scores_of(report, TOKENS[ROWS, LENGTHS - 1])


def test_repeated_tokens_have_the_same_features():
    batch = decoder_batch()
    batch[:, D : 2 * D] = batch[:, :D]
    expected = batch[:, :-1].reshape(60, 4, D)[ROWS, LENGTHS - 1]
    assert_scores_of(run(Decoder(), inputs=batch), expected)


def test_answer_that_is_no_token_has_no_features():
    class Mean(Decoder):
        def forward(self, batch):
            return self.score(batch[:, :-1].reshape(len(batch), 4, D)).mean(dim=1)

    report = run(Mean(), inputs=decoder_batch())
    assert report.feature_layer == LOGITS
    forecast = forecast_accuracy(report)
    assert "a linear probe of the logits on 60 rows" in forecast.describe()
    assert forecast.high == 1.0
    # A head that the user names has the mean over the tokens.
    assert_scores_of(run(Mean(), inputs=decoder_batch(), head="score"), TOKENS.mean(dim=1))


def trained(head, steps=10):
    """The head after a few steps of training on noise."""
    optimizer = torch.optim.SGD(head.parameters(), 0.05)
    x, y = torch.randn(64, head.in_features), torch.arange(64) % head.out_features
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(x), y).backward()
        optimizer.step()
    return head


@pytest.mark.parametrize(("zero_bias", "said"), [(False, "spread as PyTorch draws"), (True, "exactly 0")])
def test_new_head_is_told(zero_bias, said):
    head = nn.Linear(D, C)
    if zero_bias:
        nn.init.zeros_(head.bias)
    source = nn.Sequential(nn.Linear(5, D), nn.Tanh(), head)
    note = next(note for note in run(source).notes if "looks new" in note)
    assert note.startswith("The source's head (2) looks new")
    assert said in note
    source[2] = nn.Linear(D, Z)  # another number of classes: no replaced head
    assert not any("looks new" in note for note in run(source).notes)


def test_trained_head_does_not_look_new():
    for seed in range(4):
        torch.manual_seed(seed)
        assert looks_new(nn.Linear(512, 10))
        assert not looks_new(trained(nn.Linear(512, 10)))
    assert not looks_new(nn.Conv2d(3, 4, 1))


def test_head_without_a_bias_is_told_by_the_spread_that_transformers_draw():
    for seed in range(5):
        torch.manual_seed(seed)
        head = nn.Linear(256, 8, bias=False)  # as the head of a decoder that classifies
        nn.init.normal_(head.weight, std=0.02)
        assert "standard deviation 0.02" in looks_new(head)
        assert not looks_new(trained(head))


def test_noise_beside_a_confident_probe_is_explained():
    torch.manual_seed(0)
    x = torch.randn(60, 5)
    x[:, :C] += 6 * nn.functional.one_hot(Y, C)
    source = nn.Linear(5, Z)
    source.weight.data[:, :C] = 0.0  # the head sees nothing of what tells the classes apart
    report = run(source, inputs=x, num_permutations=19)
    assert report.linear_probe_accuracy > 0.95
    noise = next(note for note in report.notes if "LEEP cannot be told from noise" in note)
    assert f"The linear probe can ({report.linear_probe_accuracy:.3f};" in noise
    assert "The linear probe can" not in "".join(
        run(source, num_permutations=19).notes
    )  # nothing to explain: the probe is no better
