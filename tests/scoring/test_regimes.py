"""Data as it comes: imbalanced, tiny, noisy, two classes, more classes than images, ignored and dense labels.

Each regime goes through a whole scoring pass and is compared with values that owe nothing to the library: the
definitions in NumPy, and where a regime allows it numbers derived by hand.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import score
from lightning_leep.tensorboard import report_markdown
from tests._helpers.feature_references import reference_h_score, reference_log_me, reference_probe
from tests._helpers.references import (
    label_entropy,
    reference_eep_accuracy,
    reference_eep_scores,
    reference_nce,
    reference_softmax,
)


class Source(nn.Module):
    """Features are the inputs ``[..., d]`` themselves; the last dimension becomes classes in dimension 1."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.fc = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
        self.fc.weight.data = torch.tensor(weight)

    def forward(self, x):
        return self.fc(x).movedim(-1, 1)


def reference(features, labels, weight, num_target_classes):
    """Every score of flat rows ``[n, d]`` from its definition."""
    theta = reference_softmax(features @ weight.T)
    return reference_eep_scores(theta, labels, num_target_classes) | {
        "num_samples": len(labels),
        "class_counts": tuple(np.bincount(labels, minlength=num_target_classes)),
        "label_entropy": label_entropy(labels),
        "eep_accuracy": reference_eep_accuracy(theta, labels, num_target_classes),
        "nce": reference_nce(theta.argmax(axis=1), labels),
        "h_score": reference_h_score(features, labels, shrinkage=True),
        "h_score_unshrunk": reference_h_score(features, labels, shrinkage=False),
        "log_me": reference_log_me(features, labels),
        **reference_probe(features, labels),
    }


def report_on(features, labels, weight, num_target_classes, batch_size=7, **kwargs):
    data = TensorDataset(torch.as_tensor(features), torch.as_tensor(labels))
    loader = DataLoader(data, batch_size=batch_size)
    return score(Source(weight), loader, num_target_classes, progress=False, **kwargs)


def assert_scores(report, expected):
    found = {name: getattr(report, name) for name in expected}
    assert found == {
        name: pytest.approx(value, rel=1e-6, abs=1e-9) if isinstance(value, float) else value
        for name, value in expected.items()
    }


def make(labels, num_features=5, num_source_classes=6, seed=0, signal=1.5):
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    features = rng.normal(size=(len(labels), num_features))
    features += signal * rng.normal(size=(labels.max() + 1, num_features))[labels]
    return features, labels, rng.normal(size=(num_source_classes, num_features))


#: Labels, number of target classes and of features.
REGIMES = {
    "imbalanced": ([0] * 60 + [1] * 6 + [2] * 2, 3, 5),
    "an absent class": ([0] * 9 + [2] * 11 + [3] * 10, 5, 5),
    "tiny": ([0, 0, 1, 1, 1, 2], 3, 5),
    "two classes": ([0] * 21 + [1] * 13, 2, 5),
    "more classes than images": ([3, 3, 7, 7, 0, 9, 12, 19], 20, 5),
    "fewer images than features": ([0] * 5 + [1] * 4 + [2] * 3, 3, 30),
    "one degree of freedom": ([0, 0, 1, 2], 3, 5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REGIMES)
def test_every_score_by_definition(name):
    labels, num_target_classes, num_features = REGIMES[name]
    features, labels, weight = make(labels, num_features)
    order = np.random.default_rng(1).permutation(len(labels))
    features, labels = features[order], labels[order]
    expected = reference(features, labels, weight, num_target_classes)
    for memory in ("device", "second_pass"):
        report = report_on(features, labels, weight, num_target_classes, memory=memory)
        assert_scores(report, expected)
    said = [note for note in report.notes if "have a single image" in note or "has a single image" in note]
    assert bool(said) == (1 in report.class_counts)


def test_dense_prediction_with_ignored_labels():
    """Every pixel is a row; ignored pixels are not, and may hold anything at all."""
    features, labels, weight = make(np.arange(72) % 3)
    pixels, masks = features.reshape(4, 3, 6, 5).copy(), labels.reshape(4, 3, 6).copy()  # [N, H, W, d], [N, H, W]
    masks[1, 0], masks[:, 2, 5] = 255, 255
    kept = masks.reshape(-1) != 255
    pixels[masks == 255] = np.nan
    report = report_on(pixels, masks.astype(np.uint8), weight, 3, batch_size=3, ignore_index=255)
    assert kept.sum() < 72
    assert_scores(report, reference(features[kept], labels[kept], weight, 3))
    assert report.rows_per_image == 18
    assert any(note.startswith("An image gives up to 18 rows") for note in report.notes)


def test_pixels_of_an_image_that_are_all_alike():
    """Twelve images whose 16 pixels are copies: LEEP is that of the images, its standard error four times too small.

    Labels have nothing to do with the images, yet every pixel is foreseen from the others of its image.
    """
    rng = np.random.default_rng(0)
    features, weight = rng.normal(size=(12, 5)), 2 * rng.normal(size=(6, 5))
    labels = np.arange(12) % 3
    pixels = np.broadcast_to(features[:, None, None], (12, 4, 4, 5)).copy()
    masks = np.broadcast_to(labels[:, None, None], (12, 4, 4)).copy()
    images, dense = (report_on(*data, weight, 3) for data in ((features, labels), (pixels, masks)))
    assert (images.rows_per_image, dense.rows_per_image) == (1, 16)
    one_pixel = report_on(features[:, None], labels[:, None], weight, 3)  # which is one row
    assert (one_pixel.rows_per_image, one_pixel.leep, one_pixel.notes) == (1, images.leep, images.notes)
    assert not any(note.startswith("An image gives up to") for note in images.notes)
    assert any(note.startswith("An image gives up to 16 rows") and "from noise" in note for note in dense.notes)
    assert "explains" not in report_markdown(dense)
    assert dense.leep == pytest.approx(images.leep, rel=1e-6)
    assert dense.leep_standard_error == pytest.approx(images.leep_standard_error * math.sqrt(11 / 191), rel=1e-6)
    assert dense.linear_probe_accuracy > images.linear_probe_accuracy + 0.3


# -- by hand -----------------------------------------------------------------------------------------------------------

CONFIDENT = 60.0  # one-hot features times this are logits whose softmax is one-hot to rounding


def test_source_that_says_nothing_of_imbalanced_labels_by_hand():
    """Constant output: everything lies at the floor, and the best guess is the largest class."""
    labels = np.array([0] * 90 + [1] * 9 + [2])
    features = np.ones((100, 3))
    report = report_on(features, labels, np.ones((4, 3)), 3)
    floor = 0.9 * math.log(0.9) + 0.09 * math.log(0.09) + 0.01 * math.log(0.01)
    # Without the row: prior (n_y - 1) / 99 alone, as every source class holds the same; the single row is left out.
    counted = (90 * math.log(89 / 99) + 9 * math.log(8 / 99)) / 99
    assert_scores(
        report,
        {
            "leep": floor,
            "nce": floor,
            "leave_one_out_leep": counted,
            "eep_accuracy": 0.9,
            "h_score": 0.0,
            "h_score_unshrunk": 0.0,
            "linear_probe_accuracy": 90 / 99,
            "linear_probe_samples": 99,
        },
    )
    assert report.floor == pytest.approx(floor)
    assert report.notes[0].startswith("The source's outputs are the same for every target class")
    assert not any("noise" in note for note in report.notes)


def test_every_image_of_a_class_of_its_own_by_hand():
    """n classes of one image: leave-one-out scores know nothing, LEEP of a one-hot source that tells all apart is 0."""
    report = report_on(np.eye(4), np.arange(4), CONFIDENT * np.eye(4), 9)
    assert_scores(report, {"leep": 0.0, "nce": 0.0, "eep_accuracy": 1.0, "linear_probe_samples": 0})
    assert math.isnan(report.leave_one_out_leep)
    assert report.linear_probe_accuracy is None
    assert report.permutation_p_value == 1.0  # shuffled labels do as well
    assert "cannot be told from noise" in report.notes[0]
    assert report.class_counts == (1,) * 4 + (0,) * 5
