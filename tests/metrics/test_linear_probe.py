"""LinearProbeAccuracy as a metric: the value of the function in every use that torchmetrics has for it."""

import itertools
import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from lightning_leep import HScore, LinearProbeAccuracy, LogME
from lightning_leep.functional import linear_probe
from tests._helpers.metric_state import AllocatedBytes, assert_unchanged, snapshot

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


def values_of(probe):
    return {name: value.item() for name, value in probe._asdict().items()}


def assert_same_probe(found, expected):
    assert values_of(found) == {name: pytest.approx(value, **EXACT) for name, value in values_of(expected).items()}


@pytest.mark.parametrize("batch_size", [1, 7, 90])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_batches_equal_the_function_on_all_rows(batch_size, mean):
    data = rows(mean=mean)
    metric, expected = filled(data, batch_size), linear_probe(*data, C)
    assert metric.compute().item() == pytest.approx(expected.accuracy.item(), **EXACT)
    assert 0.5 < expected.accuracy < 1
    found = values_of(metric.result())
    assert found == {name: pytest.approx(value, rel=1e-7) for name, value in values_of(expected).items()}
    assert (found["num_rows"], found["num_excluded"]) == (89, 1)


def test_forward_gives_the_batch_and_keeps_all():
    features, target = rows()
    metric = LinearProbeAccuracy(C, D)
    for start in (0, 30, 60):
        batch = features[start : start + 30], target[start : start + 30]
        assert metric(*batch).item() == pytest.approx(linear_probe(*batch, C).accuracy.item(), **EXACT)
    assert_same_probe(metric.result(), linear_probe(features, target, C))


def test_forward_costs_the_same_for_the_last_batches_as_for_the_first():
    metric, costs = LinearProbeAccuracy(C, D), []
    for _ in range(4 * 32):
        with AllocatedBytes() as allocated:
            metric(*rows(40))
        costs.append(allocated.total)
    first, *later = (costs[start : start + 32] for start in range(32, 4 * 32, 32))  # of which 32 are joined to a block
    assert later == [first, first]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), cuts=st.lists(st.integers(0, 40), max_size=3))
def test_any_split_into_batches_and_merges(seed, cuts):
    features, target = rows(40, seed)
    metric = LinearProbeAccuracy(C, D)
    for i, (low, high) in enumerate(itertools.pairwise([0, *sorted(cuts), 40])):
        batch = features[low:high], target[low:high]
        metric.merge_state(filled(batch)) if i % 2 else metric.update(*batch)
    expected = linear_probe(features, target, C)
    assert metric.compute().item() == pytest.approx(expected.accuracy.item(), **EXACT)
    assert metric.result().log_likelihood.item() == pytest.approx(expected.log_likelihood.item(), rel=1e-8)


def test_merged_states_share_nothing_afterwards():
    first, second = filled(rows(40, 1)), filled(rows(50, 2))
    first.compute(), second.compute()
    first.merge_state(second)
    both = [torch.cat(parts) for parts in zip(rows(40, 1), rows(50, 2), strict=True)]
    assert first.compute().item() == pytest.approx(linear_probe(*both, C).accuracy.item(), **EXACT)
    assert second.compute().item() == pytest.approx(linear_probe(*rows(50, 2), C).accuracy.item(), **EXACT)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (LinearProbeAccuracy(C, D + 1), r"`centre` must be a tensor of shape \[6\], got \[7\]"),
        (LinearProbeAccuracy(C, D, ignore_index=-1), "other settings"),
        (LinearProbeAccuracy(C, D, keep_rows=False), "other settings"),
        (HScore(C, D), "must be a LinearProbeAccuracy or a dictionary"),
    ],
)
def test_merge_with_another_kind_is_refused(other, message):
    metric = filled()
    before = snapshot(metric)
    with pytest.raises(ValueError, match=message):
        metric.merge_state(other)
    assert_unchanged(metric, before)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric .* was called before")
def test_reset_clone_pickle_deepcopy_and_state_dict():
    metric = filled()
    expected = linear_probe(*rows(), C)
    metric.persistent(True)
    loaded = LinearProbeAccuracy(C, D)
    loaded.load_state_dict(metric.state_dict())
    copies = [metric.clone(), pickle.loads(pickle.dumps(metric)), deepcopy(metric), loaded]
    for copy in copies:
        copy._computed = None
        assert_same_probe(copy.result(), expected)
        copy.update(*rows(30, seed=1))
    assert_same_probe(metric.result(), expected)
    assert len({hash(copy) for copy in (metric, *copies)}) == 5
    metric.reset()
    assert metric.rows == []
    with pytest.warns(UserWarning, match="needs at least 2 rows"):
        assert metric.compute().isnan()
    metric.update(*rows())
    assert metric.compute().item() == pytest.approx(expected.accuracy.item(), **EXACT)


def test_nothing_can_be_said_of_single_rows():
    metric = LinearProbeAccuracy(C, D)
    metric.update(torch.randn(4, D), torch.arange(4))
    with pytest.warns(UserWarning, match="LinearProbeAccuracy needs at least 2 rows to say anything, got 0"):
        assert metric.compute().isnan()
    result = values_of(metric.result())
    assert (result["num_rows"], result["num_excluded"]) == (0, 4)
    assert all(np.isnan(result[name]) for name in ("accuracy", "standard_error", "log_likelihood", "shrinkage"))


@pytest.mark.parametrize(
    ("features", "target", "error", "message"),
    [
        (torch.ones(2, D), torch.tensor([0, C]), ValueError, r"labels in 0\.\.3"),
        (torch.ones(2, D + 1), torch.tensor([0, 1]), ValueError, "`features` must have 6 features"),
        (torch.full((2, D), torch.inf), torch.tensor([0, 1]), ValueError, "`features` must be finite"),
        (torch.ones(2, D, dtype=torch.long), torch.tensor([0, 1]), TypeError, "`features` must be floating point"),
        (torch.ones(2, D), torch.tensor([[0], [1]]), ValueError, "`target` must have shape"),
    ],
)
def test_bad_batch_leaves_the_state_as_it_was(features, target, error, message):
    metric = filled()
    before = snapshot(metric)
    for call in (metric.update, metric):
        with pytest.raises(error, match=message):
            call(features, target)
    assert_unchanged(metric, before)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((0, D), {}, "`num_target_classes` must be an integer of at least 1"),
        ((C, True), {}, "`num_features` must be an integer of at least 1"),
        ((C, D), {"ignore_index": 1.0}, "`ignore_index` must be an integer or None"),
        ((C, D), {"keep_rows": 1}, "`keep_rows` must be True or False"),
    ],
)
def test_bad_arguments(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        LinearProbeAccuracy(*args, **kwargs)


class TestWithoutRows:
    def test_two_passes_equal_kept_rows(self):
        metric = filled(keep_rows=False)
        score_batch = metric.second_pass()
        for batch, labels in zip(*(t.split(13) for t in rows()), strict=True):
            score_batch(batch, labels)
        assert metric.rows == [] == metric.labels
        assert_same_probe(metric.result(), linear_probe(*rows(), C))

    def test_without_a_second_pass_there_is_no_answer(self):
        metric = filled(keep_rows=False)
        before = snapshot(metric)
        for call in (metric.compute, metric.result):
            with pytest.raises(RuntimeError, match=r"`second_pass\(\)`"):
                call()
        assert_unchanged(metric, before)
        with pytest.raises(RuntimeError, match="keep_rows=False"):
            filled().second_pass()

    def test_single_rows_alone_need_no_second_answer(self):
        """No row can be scored, in the second pass either: that is NaN, not a missing second pass."""
        metric = LinearProbeAccuracy(C, D, keep_rows=False)
        batch = torch.randn(4, D), torch.arange(4)
        metric.update(*batch)
        metric.second_pass()(*batch)
        with pytest.warns(UserWarning, match="needs at least 2 rows"):
            assert metric.compute().isnan()

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
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_half_precision_rows_are_kept_and_scored_as_they_are(dtype, mean):
    features, target = rows(400, mean=mean)
    metric = filled((features.to(dtype), target))
    assert {row.dtype for row in metric.rows} == {dtype}
    assert_same_probe(metric.result(), linear_probe(features.to(dtype).double(), target, C))


class TestComputeGroup:
    def test_shares_moments_with_h_score_and_log_me_when_named_first(self):
        from lightning_leep.functional import h_score, log_me

        collection = MetricCollection(
            {"probe": LinearProbeAccuracy(C, D), "h": HScore(C, D), "m": LogME(C, D)},
            compute_groups=[["probe", "h", "m"]],
        )
        features, target = rows()
        for batch, labels in zip(features.split(30), target.split(30), strict=True):
            collection.update(batch, labels)
        members = dict(collection.items(copy_state=False))
        assert members["probe"].scatter is members["h"].scatter is members["m"].scatter
        values = collection.compute()
        assert values["probe"].item() == pytest.approx(linear_probe(features, target, C).accuracy.item(), **EXACT)
        assert values["h"].item() == pytest.approx(h_score(features, target, C).item(), **EXACT)
        assert values["m"].item() == pytest.approx(log_me(features, target, C).item(), **EXACT)

    @pytest.mark.parametrize("settings_", [{"ignore_index": 3}, {"keep_rows": False}])
    def test_other_settings_are_another_group(self, settings_):
        """Both agree on the first batch: no label is ignored, and halves are the same in any precision."""
        collection = MetricCollection({"a": LinearProbeAccuracy(C, D), "b": LinearProbeAccuracy(C, D, **settings_)})
        collection.update(torch.full((4, D), 0.5), torch.tensor([0, 1, 0, 1]))
        assert sorted(collection.compute_groups.values()) == [["a"], ["b"]]

    def test_equal_settings_are_one_group(self):
        collection = MetricCollection({"a": LinearProbeAccuracy(C, D), "b": LinearProbeAccuracy(C, D)})
        collection.update(*rows())
        assert list(collection.compute_groups.values()) == [["a", "b"]]
