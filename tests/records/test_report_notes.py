"""The notes say in words what the numbers of a report cannot be believed for, and nothing else."""

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


def notes_of(nleep_rows=None, **changes):
    return notes(TransferabilityReport(**{**CLEAN, **changes}), nleep_rows=nleep_rows)


def test_silent_on_a_clean_signal():
    assert notes_of() == ()
    assert notes_of(permutation_p_value=None, permutation_mean=None) == ()  # no permutations asked for
    assert notes(TransferabilityReport(**CLEAN, nleep=-0.5), nleep_rows=10_000) == ()


@pytest.mark.parametrize(("p_value", "said"), [(1 / 21, False), (0.05, False), (2 / 21, True), (1.0, True)])
def test_p_value_tells_noise(p_value, said):
    found = notes_of(permutation_p_value=p_value)
    assert [re.findall(r"cannot be told from noise.*\(p = (.*)\)", note) for note in found] == (
        [[f"{p_value:.2f}"]] if said else []
    )


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
    told = [note for note in found if note.startswith("Out of sample LEEP cannot be told from noise")]
    assert len(told) == said
    assert all("-1.386" in note and f"{value:.3f}" in note for note in told)


def test_noise_is_said_once():
    found = notes_of(permutation_p_value=0.5, leave_one_out_leep=-1.5)
    assert len([note for note in found if "noise" in note]) == 1


@pytest.mark.parametrize(("changes", "noise"), [({}, False), ({"permutation_p_value": 0.5}, True)])
def test_rows_of_one_image_do_not_tell_noise(changes, noise):
    """The note stands whatever the p-value and the standard errors are, and after what tells noise even so."""
    found = notes_of(rows_per_image=256, **changes)
    assert [note.startswith("LEEP cannot be told from noise") for note in found] == (
        [True, False] if noise else [False]
    )
    assert found[-1].startswith("An image gives up to 256 rows (pixels, tokens), which are not independent")
    assert found[-1].endswith("too optimistic, and do not tell LEEP from noise.")
    assert notes_of(rows_per_image=1) == ()


def test_floor_of_leave_one_out_is_that_of_the_rows_it_counts():
    """Fifty single images are left out: what remains is one class, about which a useless source is right.

    -H(Y) = 0.5 log 0.5 + 0.5 log 0.01 = -2.65, but a source that says nothing gets log 0.5 = -0.69 on the 50 others.
    """
    counts = (50, *[1] * 50)
    entropy = -(0.5 * math.log(0.5) + 0.5 * math.log(0.01))
    report = {
        "num_samples": 100,
        "num_target_classes": 51,
        "class_counts": counts,
        "label_entropy": entropy,
        "leep": -0.6,
        "leave_one_out_leep": -0.71,
    }
    assert TransferabilityReport(**{**CLEAN, **report}).leave_one_out_floor == pytest.approx(math.log(0.5))
    assert any(
        "Out of sample LEEP cannot be told from noise" in note and "-0.693" in note for note in notes_of(**report)
    )
    assert not any("noise" in note for note in notes_of(**{**report, "leave_one_out_leep": -0.6}))


def test_one_class():
    found = notes_of(class_counts=(0, 1000, 0, 0), label_entropy=0.0)
    assert found[0] == "All labels are of one class, so that no score says anything."
    assert found[1] == "3 of 4 target classes have no image."


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"permutation_mean": -0.6}, "-0.600"),  # shuffled labels reach more than half of the way
        ({"permutation_mean": -0.95}, None),  # less than half
        ({"permutation_mean": None, "leave_one_out_leep": -1.0}, "-1.000"),  # no shuffles: what is left out of sample
        ({"permutation_mean": None, "leave_one_out_leep": -0.8}, None),
        ({"leep": -1.38, "permutation_mean": -1.38, "leave_one_out_leep": -1.37}, None),  # bias below 5% of H(Y)
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
        "leave_one_out_leep": floor + 0.61,
        "permutation_mean": None,
        "permutation_p_value": None,
    }
    assert [note for note in notes_of(**report) if "are few for" in note and f"(floor {floor:.3f})" in note]
    better = {**report, "leave_one_out_leep": floor + 0.8}
    assert not [note for note in notes_of(**better) if "are few for" in note]


def test_absent_and_single_classes():
    found = notes_of(class_counts=(0, 1, 1, 998), num_target_classes=4, label_entropy=1.0)
    assert "1 of 4 target classes have no image." in found
    assert any(note.startswith("2 of 4 target classes have a single image, which is left out") for note in found)


def test_logits_as_features():
    assert len(notes_of(feature_layer=LOGITS)) == 1
    assert "made from its logits" in notes_of(feature_layer=LOGITS)[0]
    assert notes_of(feature_layer="logits") == ()  # a layer of that name
    assert "narrow enough" in notes_of(feature_layer=None)[0]


def test_estimates():
    unknown = dict.fromkeys(("leave_one_out_leep", "leave_one_out_leep_standard_error", "eep_accuracy"), math.nan)
    none = dict.fromkeys(("permutation_mean", "permutation_p_value"))
    found = notes_of(leep_low=-0.45, leep_high=-0.38, **unknown, **none)
    assert [note for note in found if "it lies between -0.4500 and -0.3800" in note]
    assert [note for note in found if note.startswith("Whether LEEP can be told from noise is not known here")]


@pytest.mark.parametrize(("num_samples", "said"), [(10_000, False), (10_001, True)])
def test_nleep_of_a_mixture_that_is_fitted_to_a_part(num_samples, said):
    found = notes(TransferabilityReport(**{**CLEAN, "num_samples": num_samples}, nleep=-0.5), nleep_rows=10_000)
    assert any("fitted to 10000 of the rows" in note for note in found) == said


@pytest.mark.parametrize(("h_score", "said"), [(None, True), (0.0, False)])
def test_features_that_are_not_finite(h_score, said):
    assert any("features are NaN, infinite" in note for note in notes_of(num_features=8, h_score=h_score)) == said
    assert not any("NaN" in note for note in notes_of(num_features=None, h_score=None))


def test_nleep_that_was_asked_for_in_vain():
    assert "needs at least as many images (there are 1000)" in notes_of(nleep_rows=10_000)[0]
    assert "5 C = 20 Gaussians" in notes_of(nleep_rows=10_000)[0]


# -- from data to words ------------------------------------------------------------------------------------------------


def report_on(logits, labels, num_target_classes, **kwargs):
    batches = list(zip(logits.split(50), labels.split(50), strict=True))
    return score(lambda x: x, batches, num_target_classes, progress=False, **kwargs)


def data(n, num_source_classes, signal, num_target_classes=4, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_target_classes, (n,), generator=generator)
    logits = scale * torch.randn(n, num_source_classes, generator=generator)
    logits[torch.arange(n), labels % num_source_classes] += signal
    return logits, labels, num_target_classes


def without_layer(report):
    return [note for note in report.notes if "logits" not in note]  # the source here is a callable


@pytest.mark.parametrize("memory", ["device", "second_pass"])
def test_clean_data(memory):
    assert without_layer(report_on(*data(800, 10, signal=6.0), memory=memory)) == []


@pytest.mark.parametrize(("n", "z", "scale"), [(200, 10, 1.0), (2000, 10, 10.0), (150, 400, 10.0)])
@pytest.mark.parametrize("memory", ["device", "second_pass"])
def test_labels_without_relation(n, z, scale, memory):
    report = report_on(*data(n, z, signal=0.0, scale=scale), memory=memory)
    assert "cannot be told from noise" in report.notes[0]
    few = [note for note in report.notes if "are few for" in note]
    assert len(few) == (z == 400)


def test_confident_source_with_few_images_for_its_classes():
    """There is a signal, but most of LEEP's height is not it."""
    report = report_on(*data(150, 400, signal=12.0, scale=8.0))
    assert report.permutation_p_value == pytest.approx(1 / 21)
    assert any("n = 150 images are few for Z = 400" in note for note in report.notes)
