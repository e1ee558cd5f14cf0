"""The notes say what limits the numbers of a report, and nothing else."""

import math
import re

import pytest
import torch

from lightning_leep import TransferabilityReport, score
from lightning_leep.records.report_notes import LOGITS, notes

CLEAN = {
    "num_samples": 1000,
    "num_target_classes": 4,
    "num_source_classes": 50,
    "class_counts": (250, 250, 250, 250),
    "leep": -0.4,
    "leep_standard_error": 0.01,
    "leave_one_out_leep": -0.45,
    "leave_one_out_leep_standard_error": 0.01,
    "label_entropy": math.log(4),
    "eep_accuracy": 0.9,
    "eep_accuracy_standard_error": 0.01,
    "seconds": 1.0,
    "samples_per_second": 1000.0,
    "permutation_mean": -1.35,
    "permutation_standard_deviation": 0.005,
    "permutation_p_value": 1 / 21,
    "feature_layer": "fc",
}
NO_SHUFFLES = {"permutation_mean": None, "permutation_p_value": None}


def notes_of(nleep_rows=None, **changes):
    return notes(TransferabilityReport(**{**CLEAN, **changes}), nleep_rows=nleep_rows)


def test_silent_on_a_clean_signal():
    assert notes_of() == notes_of(**NO_SHUFFLES) == notes_of(nleep_rows=10_000, nleep=-0.5) == ()


@pytest.mark.parametrize(("p_value", "said"), [(0.05, False), (0.06, True), (1.0, True)])
def test_p_value_tells_noise(p_value, said):
    found = notes_of(permutation_p_value=p_value)
    assert [re.findall(r"cannot be told from noise.*p-value (.*)\)", note) for note in found] == (
        [[f"{p_value:.2f}"]] if said else []
    )
    both = notes_of(permutation_p_value=p_value, leave_one_out_leep=-1.5)
    assert len([note for note in both if "noise" in note]) == 1  # said once


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [(-1.36, 0.01, False), (-1.37, 0.01, True), (-1.5, 0.01, True), (-1.2, 0.1, True), (-1.2, 0.05, False)],
)
@pytest.mark.parametrize("p_value", [None, 1 / 21])
def test_leave_one_out_form_tells_noise_by_two_standard_errors(value, error, said, p_value):
    """The floor is -log 4 = -1.386."""
    found = notes_of(
        leave_one_out_leep=value,
        leave_one_out_leep_standard_error=error,
        leep=value + 0.01,
        permutation_p_value=p_value,
        permutation_mean=-1.38,
    )
    told = [note for note in found if note.startswith("Out of sample, LEEP cannot be told from noise")]
    assert len(told) == said
    assert all("-1.386" in note and f"{value:.3f}" in note for note in told)


@pytest.mark.parametrize(("accuracy", "said"), [(0.29, True), (0.27, False), (None, False)])
def test_noise_beside_features_that_tell_the_classes_apart(accuracy, said):
    """The largest class has 0.25 of the rows: an accuracy more than three standard errors above it is no chance."""
    (found,) = notes_of(
        permutation_p_value=0.5, linear_probe_accuracy=accuracy, linear_probe_accuracy_standard_error=0.01
    )
    assert ("The linear probe can (0.290; the largest class has 0.250 of the rows)" in found) == said


def test_noise_is_unknown_without_a_null_and_without_a_second_image_of_any_class():
    found = notes_of(**NO_SHUFFLES, leave_one_out_leep=math.nan, leave_one_out_leep_standard_error=math.nan)
    assert found[0].startswith("Whether LEEP can be told from noise is unknown")
    lone = TransferabilityReport(**{**CLEAN, "num_samples": 4, "class_counts": (1, 1, 1, 1)})
    assert math.isnan(lone.leave_one_out_floor)


@pytest.mark.parametrize("noise", [False, True])
def test_rows_of_one_image_do_not_tell_noise(noise):
    """The note stands whatever the p-value and the standard errors are, after what tells noise even so."""
    found = notes_of(rows_per_image=256, permutation_p_value=0.5 if noise else 1 / 21)
    assert [note.startswith("LEEP cannot be told from noise") for note in found] == [True, False][not noise :]
    assert found[-1].startswith("An image gives up to 256 rows (pixels, tokens), which are not independent")


def test_floor_of_leave_one_out_is_that_of_the_rows_it_counts():
    """Fifty single images are left out: what remains is one class, about which a useless source is right.

    -H(Y) = 0.5 log 0.5 + 0.5 log 0.01 = -2.65, but a source that says nothing gets log 0.5 = -0.69 on the 50 others.
    """
    report = {
        "num_samples": 100,
        "num_target_classes": 51,
        "class_counts": (50, *[1] * 50),
        "label_entropy": -(0.5 * math.log(0.5) + 0.5 * math.log(0.01)),
        "leep": -0.6,
        "leave_one_out_leep": -0.71,
    }
    assert TransferabilityReport(**{**CLEAN, **report}).leave_one_out_floor == pytest.approx(math.log(0.5))
    assert any("cannot be told from noise" in note and "-0.693" in note for note in notes_of(**report))
    assert not any("noise" in note for note in notes_of(**{**report, "leave_one_out_leep": -0.6}))


def test_classes_without_images_and_with_one():
    found = notes_of(class_counts=(0, 1000, 0, 0), label_entropy=0.0)
    assert found == ("All labels are of one class, so the scores say nothing.", "3 of 4 target classes have no image.")
    found = notes_of(class_counts=(0, 1, 1, 998), label_entropy=1.0)
    assert "1 of 4 target classes have no image." in found
    assert any(note.startswith("2 of 4 target classes have a single image.") for note in found)


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"permutation_mean": -0.6}, "-0.600"),  # shuffled labels reach more than half of the way
        ({"permutation_mean": -0.95}, None),  # less than half
        ({"permutation_mean": None, "leave_one_out_leep": -1.0}, "-1.000"),  # no shuffles: what is left out of sample
        ({"permutation_mean": None, "leave_one_out_leep": -0.8}, None),
        ({"leep": -1.25, "permutation_mean": -1.31, "leave_one_out_leep": -1.3}, "-1.310"),  # 5.5% of H(Y)
        ({"leep": -1.27, "permutation_mean": -1.32, "leave_one_out_leep": -1.3}, None),  # below 5% of H(Y)
    ],
)
def test_too_few_images_for_the_source_classes(changes, number):
    found = [note for note in notes_of(**changes) if "are few for" in note]
    assert len(found) == (number is not None)
    if number:
        assert found[0].startswith("n = 1000 images are few for Z = 50 source classes")
        assert number in found[0]


def test_bias_is_measured_from_the_floor_of_the_rows_that_are_counted():
    """Classes of 200 and 100 images and 100 single ones: floors are -2.19 on all rows and -0.81 on the 300 counted.

    Out of sample 0.61 above its floor where LEEP is 1.59 above its own: more than half of that says nothing. Against
    the one floor, -0.2 would look better than LEEP itself.
    """
    counts = (200, 100, *[1] * 100)
    entropy = -sum(count / 400 * math.log(count / 400) for count in counts)
    floor = (200 * math.log(0.5) + 100 * math.log(0.25)) / 300
    report = {
        "num_samples": 400,
        "num_target_classes": 102,
        "class_counts": counts,
        "label_entropy": entropy,
        "leep": 0.35 - entropy + 1.24,
        **NO_SHUFFLES,
    }
    worse, better = (notes_of(**report, leave_one_out_leep=floor + height) for height in (0.61, 0.8))
    assert any("are few for" in note and f"(floor {floor:.3f})" in note for note in worse)
    assert not any("are few for" in note for note in better)


def test_features():
    (found,) = notes_of(feature_layer=LOGITS)
    assert "computed from the logits" in found
    assert notes_of(feature_layer="logits") == ()  # a layer of that name
    assert "too wide" in notes_of(feature_layer=None)[0]
    assert "some features are NaN, infinite" in notes_of(num_features=8)[0]
    assert notes_of(num_features=8, h_score=0.0) == ()


def test_nleep():
    (found,) = notes_of(nleep_rows=10_000)
    assert "5 C = 20 Gaussians" in found
    assert "at least as many images (there are 1000)" in found
    assert notes_of(nleep_rows=1000, nleep=-0.5) == ()
    assert "fitted to 999 random rows" in notes_of(nleep_rows=999, nleep=-0.5)[0]


@pytest.mark.parametrize(
    ("first", "second", "said"), [((2, 6), (1, 3), True), ((2, 6), (6, 2), False), ((2, 6), (0, 0), False)]
)
def test_outputs_that_are_the_same_for_every_class(first, second, said):
    """P(z|y) of the two classes that have images; with one such class there is nothing to compare."""
    found = notes_of(joint=torch.tensor([first, second, (0, 0), (0, 0)]))
    assert any("outputs are the same for every target class" in note for note in found) == said


def test_layers_without_scores_are_named_by_their_reason():
    left_out = [*((name, "is too wide") for name in "abc"), ("d", "has NaN")]
    assert notes(TransferabilityReport(**CLEAN), layers_left_out=left_out) == (
        "There are no scores of the layer 'a', which is too wide. The same holds for 2 more, to 'c'.",
        "There are no scores of the layer 'd', which has NaN.",
    )


def report_on(n, num_source_classes, signal, scale=1.0, **options):
    """A source whose logits are noise, with a signal added at the label."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (n,), generator=generator)
    logits = scale * torch.randn(n, num_source_classes, generator=generator)
    logits[torch.arange(n), labels % num_source_classes] += signal
    batches = list(zip(logits.split(50), labels.split(50), strict=True))
    return score(lambda x: x, batches, 4, progress=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "z", "scale", "memory"),
    [(200, 10, 1.0, "device"), (1000, 10, 10.0, "second_pass"), (150, 400, 10.0, "device")],
)
def test_scored_noise_is_called_noise(n, z, scale, memory):
    report = report_on(n, z, signal=0.0, scale=scale, memory=memory)
    assert "cannot be told from noise" in report.notes[0]
    assert any("are few for" in note for note in report.notes) == (z == 400)
    clean = report_on(800, 10, signal=6.0, memory=memory)
    assert [note for note in clean.notes if "logits" not in note] == []  # the source has no layer
