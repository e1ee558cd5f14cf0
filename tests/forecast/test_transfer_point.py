"""What the regression sees of a report."""

import math

import numpy as np
import pytest
import torch

from lightning_leep import score
from lightning_leep.forecast.transfer_point import TransferPoint


def test_leave_one_out_leep_of_a_source_that_says_nothing_is_about_its_floor():
    """50 images of one class and one image each of 50 others, which leave-one-out LEEP leaves out.

    The prior of the rest is 49/99 for each of the 50 that are counted, whose frequency is 50/100. Against -H(Y) = -2.65
    the source would seem to know 1.9 nats.
    """
    target = torch.cat([torch.zeros(50), torch.arange(1, 51)]).long()
    report = score(lambda x: torch.zeros(len(x), 4), [(torch.zeros(100, 1), target)], 51, progress=False)
    point = TransferPoint.of(report, test_size=None, trainable="head")
    np.testing.assert_allclose(point.features[-2:], [0, math.log(49 / 99) - math.log(50 / 100)], atol=1e-6)


def test_score_that_is_missing_is_missing_above_its_floor():
    """Every class has one image: there is no leave-one-out LEEP, and no floor of it."""
    report = score(lambda x: x, [(torch.eye(4), torch.arange(4))], 4, progress=False)
    assert math.isnan(TransferPoint.of(report, test_size=None, trainable="head").features[-1])
    assert TransferPoint.of(report, test_size=None, trainable="head").features[-2] == pytest.approx(
        report.leep + math.log(4)
    )
