"""LinearProbeAccuracy as a metric: the value of the function in every use that torchmetrics has for it."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_leep import LinearProbeAccuracy
from lightning_leep.functional import linear_probe

C, D = 4, 6
EXACT = {"rel": 1e-9, "abs": 1e-12}


def rows(n=90, seed=0, mean=0.0):
    """Features that say something of their labels; class 3 has a single row."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, n)
    features = rng.normal(size=(n, D)) + 1.2 * rng.normal(size=(C, D))[target] + mean
    target[n // 2] = 3
    return torch.from_numpy(features), torch.from_numpy(target)


def filled(data=None, batch_size=20, **kwargs):
    metric = LinearProbeAccuracy(C, D, **kwargs)
    features, target = rows() if data is None else data
    for batch, labels in zip(features.split(batch_size), target.split(batch_size), strict=True):
        metric.update(batch, labels)
    return metric


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), cuts=st.lists(st.integers(0, 40), max_size=3))
def test_any_split_into_batches_and_merges(seed, cuts):
    features, target = rows(40, seed)
    metric = LinearProbeAccuracy(C, D)
    for i, (low, high) in enumerate(itertools.pairwise([0, *sorted(cuts), 40])):
        batch = features[low:high], target[low:high]
        metric.merge_state(filled(batch)) if i % 2 else metric.update(*batch)
    found, expected = metric.result(), linear_probe(features, target, C)
    assert metric.compute().item() == pytest.approx(expected.accuracy.item(), **EXACT)
    for name, value in expected._asdict().items():
        if name.startswith("row_"):  # the metric says nothing of single rows
            assert getattr(found, name) is None
        else:
            torch.testing.assert_close(getattr(found, name), value, rtol=1e-8, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("keep_rows", [True, False])
def test_nothing_can_be_said_of_single_rows(keep_rows):
    """Of rows that are the only ones of their classes: that is NaN, not a missing second pass."""
    metric, batch = LinearProbeAccuracy(C, D, keep_rows=keep_rows), (torch.randn(4, D), torch.arange(4))
    metric.update(*batch)
    if not keep_rows:
        metric.second_pass()(*batch)
    with pytest.warns(UserWarning, match="LinearProbeAccuracy needs at least 2 rows to say anything, got 0"):
        assert metric.compute().isnan()
    result = metric.result()
    assert (result.num_rows, result.num_excluded) == (0, 4)
    assert all(value.isnan() for value in (result.accuracy, result.standard_error, result.log_likelihood))


class TestWithoutRows:
    @pytest.mark.parametrize("change", ["features", "labels", "number"])
    def test_other_rows_in_the_second_pass(self, change):
        features, target = rows()
        metric = filled(keep_rows=False)
        score_batch = metric.second_pass()
        if change == "features":  # one row of 90, by a standard deviation
            features[0] += 1.0
        elif change == "labels":
            target[0] = (target[0] + 1) % 3
        else:
            score_batch(features[:1], target[:1])
        score_batch(features, target)
        with pytest.raises(ValueError, match="The second pass must have the rows of the first, got"):
            metric.result()

    def test_rounding_of_features_with_a_large_mean_is_not_another_row(self):
        """The last digit of float32 features, of which the source's batches decide, is 0.06 of 1e6."""
        features, target = rows(mean=1e6)
        metric = filled((features.float(), target), keep_rows=False)
        moved = features.float()
        moved[::3] += 0.0625
        assert not torch.equal(moved, features.float())
        metric.second_pass()(moved, target)
        assert metric.result().num_rows == 89


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_kept_and_scored_as_they_are(dtype):
    features, target = rows(400, mean=100.0)
    metric = filled((features.to(dtype), target))
    assert {row.dtype for row in metric.rows} == {dtype}
    expected = linear_probe(features.to(dtype).double(), target, C)
    assert metric.result().log_likelihood.item() == pytest.approx(expected.log_likelihood.item(), **EXACT)
