"""What a source returns: where its classes are, single outputs, outputs that are not logits, tuples and mappings."""

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_leep import score
from tests._helpers.feature_references import reference_h_score, reference_probe
from tests._helpers.references import random_task, reference_leep, reference_softmax

C, Z, D = 3, 4, 6


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def run(source, *batches, **options):
    return score(source, list(batches), options.pop("num_target_classes", C), progress=False, **options)


class Tagger(nn.Module):
    """A linear head on every token, the classes last; ``wrap`` makes what is returned of its outputs."""

    def __init__(self, wrap=lambda logits: logits) -> None:
        super().__init__()
        self.classifier = nn.Linear(D, Z, dtype=torch.float64)
        self.classifier.weight.data = torch.randn(Z, D, generator=generator(), dtype=torch.float64)
        self.wrap = wrap

    def forward(self, tokens):
        return self.wrap(self.classifier(tokens))


def tokens(length, n=20, seed=1):
    x = torch.randn(n, length, D, generator=generator(seed), dtype=torch.float64)
    return x, torch.randint(C, (n, length), generator=generator(seed + 1))


def wanted(source, x, y):
    """LEEP and H-score of all tokens as rows, in NumPy."""
    logits = x.reshape(-1, D) @ source.classifier.weight.data.T + source.classifier.bias.data
    return (
        reference_leep(reference_softmax(logits), y.flatten(), C),
        reference_h_score(x.reshape(-1, D).numpy(), y.flatten().numpy(), shrinkage=False),
    )


@pytest.mark.parametrize(
    ("length", "wrap", "options"),
    [
        (Z + 2, lambda logits: logits, {}),
        (Z + 2, lambda logits: logits.movedim(-1, 1), {}),
        (Z, lambda logits: SimpleNamespace(logits=logits), {}),
        (Z, lambda logits: {"loss": None, "logits": logits}, {}),
        (Z, lambda logits: (None, logits), {"class_dim": -1}),
        (Z, lambda logits: [logits.movedim(-1, 1), "name"], {"class_dim": 1}),
    ],
)
def test_classes_of_tokens_in_either_dimension(length, wrap, options):
    (x, y), source = tokens(length), Tagger(wrap)
    report = run(source, (x, y), **options)
    leep, h_score = wanted(source, x, y)
    assert report.leep == pytest.approx(leep, abs=1e-9)
    assert report.feature_layer == "classifier"
    assert report.h_score_unshrunk == pytest.approx(h_score, rel=1e-9)


def test_an_earlier_batch_tells_where_the_classes_of_a_later_one_are():
    source, first, second = Tagger(), tokens(5), tokens(Z, seed=7)
    report = run(source, first, second)
    x, y = (torch.cat([a.flatten(0, 1), b.flatten(0, 1)]) for a, b in zip(first, second, strict=True))
    assert report.leep == pytest.approx(wanted(source, x, y)[0], abs=1e-9)


def test_logits_of_pixels_have_their_classes_second():
    """As Hugging Face's models of segmentation; here height, width and the number of classes are the same."""
    logits = torch.randn(5, Z, Z, Z, generator=generator(), dtype=torch.float64)
    y = torch.randint(C, (5, Z, Z), generator=generator(1))
    theta = reference_softmax(logits.movedim(1, -1).reshape(-1, Z))
    report = run(lambda x: SimpleNamespace(logits=x), (logits, y))
    assert report.leep == pytest.approx(reference_leep(theta, y.flatten(), C), abs=1e-9)
    assert run(lambda x: {"out": x, "aux": x}, (logits[:, :, :2], y[:, :2])).num_samples == 40


@pytest.mark.parametrize(
    ("source", "batch", "options", "message"),
    [
        (Tagger(), tokens(Z), {}, r"\[20, 4, 4\] for labels of shape \[20, 4\].*Pass `class_dim=1`"),
        (Tagger(), tokens(5), {"class_dim": 3}, r"`class_dim` is 3, but the outputs have shape \[20, 5, 4\]"),
        (
            lambda x: {"out": x},
            (torch.zeros(5, Z, 4, 4), torch.zeros(5, 16, 16).long()),
            {},
            "maps of 4 x 4 for labels of 16 x 16.*interpolate",
        ),
        (lambda x: (x, x), random_task(60, Z, C), {}, "a tuple with one tensor; got tuple of Tensor, Tensor. Wrap it"),
    ],
)
def test_outputs_that_cannot_be_read_are_refused_with_what_helps(source, batch, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run(source, batch, **options)


@pytest.mark.parametrize(("squeezed", "from_logits", "classes"), [(False, True, 2), (True, False, C), (True, True, C)])
def test_single_output_is_a_binary_classifier(squeezed, from_logits, classes):
    y = torch.arange(90) % classes
    logit = torch.randn(90, 1, generator=generator(), dtype=torch.float64) + 2 * y[:, None]
    p = 1 / (1 + torch.exp(-logit))
    outputs = logit if from_logits else p
    options = {"num_target_classes": classes, "from_logits": from_logits}
    report = run(lambda x: x.squeeze(1) if squeezed else x, (outputs, y), **options)
    theta = torch.cat([1 - p, p], dim=1)
    assert report.leep == pytest.approx(reference_leep(theta, y, classes), abs=1e-9)
    assert report.num_source_classes == 2
    pixels = run(lambda x: x, (outputs.reshape(6, 3, 5), y.reshape(6, 3, 5)), **options)
    assert pixels.leep == pytest.approx(report.leep, abs=1e-9)
    said = [note for note in report.notes if "a single output" in note]
    assert said[0].endswith("are 0 and that logit." if from_logits else "are 1 - p and p.")


def test_features_of_a_single_output_are_those_of_its_head():
    x, y = torch.randn(80, D, generator=generator(), dtype=torch.float64), torch.arange(80) % 2
    x[:, 0] += 2 * y
    source = nn.Linear(D, 1, dtype=torch.float64)
    report = run(source, (x, y), num_target_classes=2)
    assert report.num_features == D
    probe = reference_probe(x.numpy(), y.numpy())
    assert report.linear_probe_accuracy == pytest.approx(probe["linear_probe_accuracy"], abs=1e-12)


def test_probabilities_read_as_logits_are_told():
    logits, y = random_task(90, Z, C)
    batches = [(part.softmax(1), labels) for part, labels in zip(logits.split(30), y.split(30), strict=True)]
    notes = run(lambda x: x, *batches).notes
    assert notes[0].startswith("Every row of outputs is non-negative and sums to 1")
    assert "`from_logits=False`" in notes[0]
    assert not any("noise" in note for note in notes)
    assert run(lambda x: x.bfloat16(), *batches).notes[0] == notes[0]  # where rows sum to 1 less exactly
    for source, options in ((lambda x: x, {"from_logits": False}), (lambda x: x.log(), {})):
        assert not any("from_logits" in note for note in run(source, *batches, **options).notes)
    # One batch that holds something else is enough to know that they are logits.
    assert not any("from_logits" in note for note in run(lambda x: x, *batches, (logits, y)).notes)


@pytest.mark.parametrize(
    ("width", "cure"), [(Z, "Pass a source that returns logits."), (1, "Pass `from_logits=False`")]
)
def test_sigmoid_outputs_read_as_logits_are_told(width, cure):
    logits, y = random_task(90, width, 2)
    told = run(lambda x: x.sigmoid(), (logits, y), num_target_classes=2).notes[0]
    assert told.startswith("Every output is between 0 and 1, as a sigmoid returns it")
    assert cure in told


@pytest.mark.parametrize(
    "target",
    [
        torch.rand(40, C, generator=generator()).softmax(1),
        torch.rand(40, generator=generator()),
        torch.rand(40, C, generator=generator()) > 0.5,
        torch.ones(40, C).long(),
    ],
)
def test_targets_that_are_not_classes_are_refused_with_what_helps(target):
    with pytest.raises((TypeError, ValueError), match=re.escape(f"shape {list(target.shape)}") + ".*`split_batch=?`"):
        run(lambda x: x, (torch.randn(40, Z), target))
