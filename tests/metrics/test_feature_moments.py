"""What H-score, LogME and N-LEEP share as metrics: streaming, torchmetrics' uses, compute groups."""

import itertools
import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchmetrics import MetricCollection, MetricTracker
from torchmetrics.wrappers import BootStrapper

from lightning_leep.functional.h_score import h_score
from lightning_leep.functional.log_me import log_me
from lightning_leep.functional.nleep import nleep
from lightning_leep.metrics.feature_metric import FeatureMetric
from lightning_leep.metrics.h_score import HScore
from lightning_leep.metrics.log_me import LogME
from lightning_leep.metrics.nleep import NLEEP
from tests._helpers.metric_state import assert_unchanged, snapshot

C, D = 3, 5


def rows(n=90, seed=0, mean=0.0):
    """Groups far apart, so that N-LEEP's mixture is the same from any start, with some labels changed."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, C, n)
    target = np.where(rng.random(n) < 0.2, rng.integers(0, C, n), group)
    features = rng.normal(size=(n, D)) + 20 * np.eye(C, D)[group] + mean
    return torch.as_tensor(features), torch.as_tensor(target)


#: Constructor and the function of all rows at once that the metric has to equal.
CASES = {
    "h_score": (HScore, {}, h_score),
    "h_score_plain": (HScore, {"shrinkage": False}, h_score),
    "log_me": (LogME, {}, log_me),
    "nleep": (NLEEP, {"num_components": 3}, nleep),
}


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def build(case, **kwargs) -> FeatureMetric:
    constructor, settings_, _ = CASES[case]
    return constructor(C, D, **settings_, **kwargs)


def expected(case, features, target, **kwargs) -> float:
    _, settings_, function = CASES[case]
    return function(features, target, C, **settings_, **kwargs).item()


def fed(case, sizes=(40, 1, 49), data=None, **kwargs) -> FeatureMetric:
    metric = build(case, **kwargs)
    features, target = data or rows()
    for batch, labels in zip(features.split(list(sizes)), target.split(list(sizes)), strict=True):
        metric.update(batch, labels)
    return metric


@pytest.mark.parametrize("mean", [0.0, 1e5])
@pytest.mark.parametrize("sizes", [(90,), (40, 1, 49), (0, 90), (1,) * 90])
def test_streaming_equals_one_shot(case, sizes, mean):
    data = rows(mean=mean)
    assert fed(case, sizes, data).compute().item() == pytest.approx(expected(case, *data), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_features(case, dtype):
    features, target = rows()
    data = features.to(dtype), target
    metric = fed(case, data=data)
    assert metric.scatter.dtype == torch.float64
    assert metric.compute().item() == pytest.approx(expected(case, features.to(dtype).double(), target), rel=1e-9)


def test_dense_features_and_ignore_index(case):
    features, target = rows(96)
    target[::7] = -100
    dense, labels = features.reshape(8, 12, D).movedim(2, 1), target.reshape(8, 12)  # [N, d, positions]
    metric = build(case, ignore_index=-100)
    for start in range(0, 8, 3):
        metric.update(dense[start : start + 3], labels[start : start + 3])
    keep = target != -100
    assert metric.compute().item() == pytest.approx(expected(case, features[keep], target[keep]), rel=1e-9)


def test_forward_returns_the_batch_and_keeps_the_whole(case):
    features, target = rows()
    metric = build(case)
    for start in (0, 30, 60):
        batch = features[start : start + 30], target[start : start + 30]
        assert metric(*batch).item() == pytest.approx(expected(case, *batch), rel=1e-9)
    assert metric.compute().item() == pytest.approx(expected(case, features, target), rel=1e-9)


def test_merged_metrics_equal_one(case):
    features, target = rows()
    one, other, none = fed(case, (30,), (features[:30], target[:30])), build(case), build(case)
    one.compute()
    other.update(features[30:], target[30:])
    one.merge_state(none)
    one.merge_state(other)
    assert one.compute().item() == pytest.approx(expected(case, features, target), rel=1e-9)
    none.merge_state(other.metric_state)
    assert none.compute().item() == pytest.approx(other.compute().item(), rel=1e-9)


def test_merge_refuses_other_settings_and_sizes(case):
    metric = fed(case)
    before = snapshot(metric)
    with pytest.raises(ValueError, match="other settings"):
        metric.merge_state(build(case, ignore_index=-1))
    with pytest.raises(ValueError, match=r"`centre` must be a tensor of shape \[5\], got \[4\]"):
        metric.merge_state(type(metric)(C, 4))
    assert_unchanged(metric, before)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric .* was called before")
def test_reset_clone_pickle_deepcopy_and_state_dict(case):
    metric = fed(case)
    value = metric.compute()
    metric.persistent(True)
    loaded = build(case)
    loaded.persistent(True)
    loaded.load_state_dict(metric.state_dict())
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric)), deepcopy(metric), loaded):
        copy._computed = None
        assert copy.compute() == value
    copy = metric.clone()
    copy.update(*rows(30, seed=1))
    assert metric.compute() == value
    metric.reset()
    with pytest.warns(UserWarning, match="needs at least"):
        assert metric.compute().isnan()
    assert hash(metric) != hash(copy)
    metric.update(*rows())
    assert metric.compute().item() == pytest.approx(value.item(), rel=1e-9)


def test_too_few_rows_are_nan_with_a_warning(case):
    metric = build(case)
    with pytest.warns(UserWarning, match=f"{type(metric).__name__} needs at least . rows to say anything, got 1"):
        assert metric(*rows(1)).isnan()


@pytest.mark.parametrize(
    ("features", "target", "error", "message"),
    [
        (torch.ones(2, D), torch.tensor([0, C]), ValueError, r"labels in 0\.\.2"),
        (torch.ones(2, D), torch.tensor([0, -100]), ValueError, "got -100"),
        (torch.ones(2, D), torch.tensor([0.0, 1.0]), TypeError, "`target`"),
        (torch.ones(2, D), torch.tensor([[0], [1]]), ValueError, "`target` must have shape"),
        (torch.ones(2, D + 1), torch.tensor([0, 1]), ValueError, "`features` must have 5 features"),
        (torch.full((2, D), torch.nan), torch.tensor([0, 1]), ValueError, "`features` must be finite"),
        (torch.full((2, D), 1e80, dtype=torch.float64), torch.tensor([0, 1]), ValueError, r"finite and up to 8e\+70"),
        (torch.ones(2, D, dtype=torch.long), torch.tensor([0, 1]), TypeError, "`features` must be floating point"),
    ],
)
def test_bad_batch_leaves_the_state_as_it_was(case, features, target, error, message):
    metric = fed(case)
    before = snapshot(metric)
    with pytest.raises(error, match=message):
        metric.update(features, target)
    with pytest.raises(error, match=message):
        metric(features, target)
    assert_unchanged(metric, before)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((0, D), {}, "`num_target_classes` must be an integer of at least 1, got 0"),
        ((C, 2.0), {}, r"`num_features` must be an integer of at least 1, got 2\.0"),
        ((C, D), {"ignore_index": "x"}, "`ignore_index` must be an integer or None"),
        ((C, D), {"validate_args": "no"}, "`validate_args` must be True or False, got 'no'"),
    ],
)
def test_bad_arguments(case, args, kwargs, message):
    constructor, settings_, _ = CASES[case]
    with pytest.raises(ValueError, match=message):
        constructor(*args, **settings_, **kwargs)


def test_unvalidated_values_are_not_read(case):
    """`validate_args=False` leaves out the checks of values, not those of shapes."""
    metric = build(case, validate_args=False)
    with pytest.raises(ValueError, match="`features` must have 5 features"):
        metric.update(torch.ones(2, 2), torch.tensor([0, 1]))
    metric.update(torch.full((2, D), torch.nan), torch.tensor([0, 1]))
    assert metric.centre.isnan().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e80])
def test_unvalidated_features_that_are_not_finite_are_no_score(case, value):
    """Of one row and one feature, in any batch; 1e80 is finite, but not its fourth power."""
    features, target = rows()
    features[50, 3] = value
    assert fed(case, data=(features, target), validate_args=False).compute().isnan()


def test_updates_do_not_write_to_the_state_or_the_batch(case):
    metric = fed(case)
    states = metric.moments
    copies = [state.clone() for state in states]
    features, target = rows(30, seed=1)
    features_before = features.clone()
    metric.update(features, target)
    assert all(torch.equal(state, copy) for state, copy in zip(states, copies, strict=True))
    assert torch.equal(features, features_before)


def test_no_gradient_is_kept(case):
    features, target = rows()
    metric = build(case)
    value = metric(features.requires_grad_(), target)
    assert not value.requires_grad
    assert not any(state.requires_grad for state in metric.moments)


def test_model_precision_does_not_reach_the_sums(case):
    model = nn.Module()
    model.metric = fed(case)
    value = model.metric.compute()
    for change in (nn.Module.half, lambda m: m.to(torch.bfloat16), nn.Module.float):
        change(model)
        model.metric.set_dtype(torch.float16)
        model.metric._computed = None
        assert model.metric.scatter.dtype == torch.float64
        assert model.metric.compute() == value


def test_autocast_does_not_reach_the_sums(case):
    features, target = rows()
    data = features.float(), target
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fed(case, data=data).compute()
    assert inside == fed(case, data=data).compute()


def test_tracker_bootstrapper_and_plot(case):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    features, target = rows()
    tracker = MetricTracker(build(case), maximize=True)
    for seed in (0, 1):
        tracker.increment()
        tracker.update(*rows(seed=seed))
    assert tracker.compute_all().shape == (2,)
    torch.manual_seed(0)
    bootstrapper = BootStrapper(build(case), num_bootstraps=3)
    bootstrapper.update(features, target)
    assert bootstrapper.compute()["std"] > 0
    metric = fed(case)
    figure, axes = metric.plot()
    assert axes.get_lines()[0].get_ydata() == pytest.approx([metric.compute().item()])
    matplotlib.pyplot.close(figure)


def test_h_scores_and_log_me_share_one_state():
    collection = MetricCollection(
        {"shrunk": HScore(C, D), "plain": HScore(C, D, shrinkage=False), "log_me": LogME(C, D)}
    )
    features, target = rows()
    for start in (0, 30, 60):
        collection.update(features[start : start + 30], target[start : start + 30])
    assert [sorted(group) for group in collection.compute_groups.values()] == [["log_me", "plain", "shrunk"]]
    members = dict(collection.items(copy_state=False))
    assert all(members[name].scatter is members["log_me"].scatter for name in ("plain", "shrunk"))
    values = collection.compute()
    assert values["shrunk"].item() == pytest.approx(h_score(features, target, C).item(), rel=1e-9)
    assert values["plain"].item() == pytest.approx(h_score(features, target, C, shrinkage=False).item(), rel=1e-9)
    assert values["log_me"].item() == pytest.approx(log_me(features, target, C).item(), rel=1e-9)


def test_other_ignored_labels_are_another_group():
    """Both agree on the first batch, which holds no ignored label."""
    collection = MetricCollection({"all": LogME(C, D), "some": HScore(C, D, ignore_index=2)})
    features, target = rows()
    first = target < 2
    collection.update(features[first], target[first])
    collection.update(features, target)
    assert len(collection.compute_groups) == 2
    features, target = torch.cat([features[first], features]), torch.cat([target[first], target])
    values = collection.compute()
    assert values["all"].item() == pytest.approx(log_me(features, target, C).item(), rel=1e-9)
    assert values["some"].item() == pytest.approx(h_score(features, target, C, ignore_index=2).item(), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), cuts=st.lists(st.integers(0, 30), max_size=3))
def test_any_split_into_batches_and_merges(seed, cuts):
    features, target = rows(30, seed=seed)
    edges = [0, *sorted(cuts), 30]
    metric = LogME(C, D)
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        if i % 2:
            part = LogME(C, D)
            part.update(features[low:high], target[low:high])
            metric.merge_state(part)
        else:
            metric.update(features[low:high], target[low:high])
    assert metric.compute().item() == pytest.approx(log_me(features, target, C).item(), rel=1e-8)
