"""Scoring of outputs that were computed before, and the number of classes found from the labels."""

import pytest
import torch
from torch import nn

from lightning_leep import ScoringOptions, score, score_outputs
from tests._helpers.feature_references import reference_h_score
from tests._helpers.references import random_task, reference_leep, reference_softmax

C, Z, D, N = 4, 5, 6, 120
LOGITS, Y = random_task(N, Z, C)
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(0)) + nn.functional.one_hot(Y, D)


class Source(nn.Module):
    """Features are the first D inputs, outputs a linear function of them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(D, Z)

    def forward(self, x):
        return self.fc(x)


def timeless(report):
    return {
        name: value
        for name, value in report.to_dict().items()
        if name not in ("seconds", "samples_per_second", "feature_layer", "num_parameters")
    }


@pytest.mark.parametrize(
    ("memory", "convert"),
    [("device", lambda x: x), ("cpu", lambda x: x.numpy()), ("second_pass", lambda x: x.flip(0).numpy()[::-1])],
)
def test_report_is_that_of_the_pass_that_ran_the_model(memory, convert):
    source, options = Source(), ScoringOptions(memory=memory)
    ran = score(source, [(FEATURES, Y)], C, options, progress=False)
    with torch.no_grad():
        logits = source(FEATURES)
    cached = score_outputs(convert(logits), convert(Y), C, features=convert(FEATURES), options=options)
    assert timeless(cached) == timeless(ran)
    assert cached.leep == pytest.approx(reference_leep(reference_softmax(logits), Y, C), abs=1e-6)
    assert cached.joint.shape == (C, Z)


def test_without_features_their_scores_are_left_out():
    report = score_outputs(LOGITS, Y, C)
    assert (report.num_features, report.feature_layer, report.h_score, report.linear_probe_accuracy) == (None,) * 4
    assert report.notes == ()


def test_tokens_with_the_classes_and_features_last():
    logits, y, features = LOGITS.reshape(20, 6, Z), Y.reshape(20, 6), FEATURES.reshape(20, 6, D)
    with pytest.raises(ValueError, match="Pass `class_dim=1` or"):
        score_outputs(LOGITS.reshape(24, 5, Z), Y.reshape(24, 5), C)
    report = score_outputs(
        logits.double(), y, C, features=features.double(), options=ScoringOptions(class_dim=-1, num_permutations=0)
    )
    assert report.leep == pytest.approx(reference_leep(reference_softmax(LOGITS), Y, C), abs=1e-9)
    expected = reference_h_score(FEATURES.double().numpy(), Y.numpy(), shrinkage=False)
    assert report.h_score_unshrunk == pytest.approx(expected, rel=1e-9)


def test_probabilities_and_single_outputs():
    theta = torch.tensor(reference_softmax(LOGITS))
    report = score_outputs(theta, Y, C, options=ScoringOptions(from_logits=False))
    assert report.leep == pytest.approx(reference_leep(theta, Y, C), abs=1e-9)
    assert "`from_logits=False`" in score_outputs(theta, Y, C).notes[0]
    single = score_outputs(LOGITS[:, 0], Y % 2, 2)
    pair = torch.stack([torch.zeros(N), LOGITS[:, 0]], dim=1)
    assert single.leep == pytest.approx(reference_leep(reference_softmax(pair), Y % 2, 2), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"logits": [[1.0]]}, TypeError, "`logits` must be a tensor or a NumPy array, got list"),
        ({"target": Y.tolist()}, TypeError, "`target` must be a tensor or a NumPy array, got list"),
        ({"features": "fc"}, TypeError, "`features` must be a tensor or a NumPy array, got str"),
        ({"target": Y.double()}, TypeError, "`target` must hold integer class labels"),
        ({"target": Y[1:]}, ValueError, "`target` must have shape"),
        ({"features": FEATURES[1:]}, ValueError, "to go with `features` of shape"),
        ({"num_target_classes": 2}, ValueError, "labels in 0..1"),
        ({"num_target_classes": 0}, ValueError, "`num_target_classes` must be an integer of at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        score_outputs(**{"logits": LOGITS, "target": Y, "num_target_classes": C} | arguments)


@pytest.mark.parametrize("memory", ["device", "cpu", "second_pass"])
def test_number_of_classes_is_found_and_said(memory):
    batches = list(zip(FEATURES.split(50), Y.sort().values.split(50), strict=True))  # the last class comes last
    source = Source()
    found = score(source, batches, progress=False, memory=memory)
    stated = score(source, batches, C, progress=False, memory=memory)
    said = f"The number of target classes, {C}, was found from the labels: the largest one plus 1."
    assert said in found.notes
    assert said not in stated.notes
    assert timeless(found) | {"notes": None} == timeless(stated) | {"notes": None}
    ignored = torch.where(torch.arange(N) % 5 == 0, 255, Y)  # which is no class
    outputs = score_outputs(LOGITS, ignored, options=ScoringOptions(memory=memory, ignore_index=255))
    assert said in outputs.notes


@pytest.mark.parametrize("memory", ["device", "second_pass"])
def test_classes_that_cannot_be_found_are_asked_for(memory):
    options = ScoringOptions(memory=memory)
    with pytest.raises(ValueError, match="Labels up to 123456 are too large .* Pass `num_target_classes=`"):
        score_outputs(LOGITS, Y + 123456 - int(Y.max()), options=options)
    with pytest.raises(ValueError, match="`target` must hold labels in 0"):
        score_outputs(LOGITS, Y - 1, options=options)
    with pytest.raises(TypeError, match="`target` must hold integer class labels, got torch.float32"):
        score(Source(), [(FEATURES, Y.float())], None, options, progress=False)
    with pytest.raises(TypeError, match="`target` must be"):
        score(Source(), [(FEATURES, Y.tolist())], None, options, progress=False)


@pytest.mark.parametrize(("memory", "reads", "runs"), [("device", 1, 1), ("second_pass", 3, 2)])
def test_how_often_the_loader_is_read_and_the_source_runs(memory, reads, runs):
    """Before a second pass the labels are read alone; rows that are kept are enough of an iterator."""
    read, ran = [], []

    class Batches:
        def __iter__(self):
            for batch in zip(FEATURES.split(50), Y.split(50), strict=True):
                read.append(len(batch[0]))
                yield batch

    source = Source()
    source.register_forward_hook(lambda module, args, output: ran.append(len(output)))
    batches = Batches() if memory == "second_pass" else iter(Batches())
    report = score(source, batches, progress=False, memory=memory)
    assert (report.num_target_classes, sum(read), sum(ran)) == (C, reads * N, runs * N)
