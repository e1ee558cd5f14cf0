"""What the text panel makes of leave-one-out LEEP: a share of the label information, or no claim at all."""

import dataclasses
import math

import pytest
import torch

from lightning_leep import score
from lightning_leep.tensorboard import report_markdown


@pytest.fixture(scope="module")
def constant():
    """A source that says nothing of 50 images of one class and one image each of 50 others.

    Without the single ones, what remains is one class that has half of all images: a source that says nothing gets
    log 0.5 on it, where it gets -H(Y) = 0.5 log 0.5 + 0.5 log 0.01 on all.
    """
    target = torch.cat([torch.zeros(50), torch.arange(1, 51)]).long()
    return score(lambda x: torch.zeros(len(x), 4), [(torch.zeros(100, 1), target)], 51, progress=False)


def with_single_classes(report, **changes):
    """Images of classes: 20, 18, 1, 1."""
    counts = (20, 18, 1, 1)
    entropy = -sum(count / 40 * math.log(count / 40) for count in counts)
    changes = {"num_target_classes": 4, "class_counts": counts, "label_entropy": entropy, **changes}
    return dataclasses.replace(report, joint=None, **changes)


def test_source_that_says_nothing_explains_nothing_of_classes_with_single_images(constant):
    """Against -H(Y) = -2.649 its -0.703 would be 73%."""
    text = report_markdown(constant)
    assert "explains" not in text
    assert "it is -0.703; a source that says nothing would have -0.693." in text
    assert "outputs are the same for every target class" in text
    assert "noise" not in text


def test_share_is_that_of_the_rows_which_are_counted(report):
    floor = (20 * math.log(20 / 40) + 18 * math.log(18 / 40)) / 38
    text = report_markdown(with_single_classes(report, leave_one_out_leep=0.25 * floor, leep=-0.1))
    assert "the source explains **75.0% of the label information**" in text


@pytest.mark.parametrize("change", [{"permutation_p_value": 0.3}, {"leave_one_out_leep_standard_error": 0.3}])
def test_no_share_is_claimed_of_what_may_be_noise(report, change):
    """Floor -1.040, leave-one-out LEEP -0.6."""
    assert "explains" in report_markdown(report)
    text = report_markdown(dataclasses.replace(report, **change))
    assert "explains" not in text
    assert "it is -0.600; a source that says nothing would have -1.040." in text


def test_both_floors_are_shown_where_they_differ(report, constant):
    assert "leave-one-out | -0.693" in report_markdown(constant)
    single = dataclasses.replace(report, class_counts=(1, 1, 1), num_samples=3, leave_one_out_leep=math.nan)
    for alike in (report, single):
        assert "floor, leave-one-out" not in report_markdown(alike)
