"""In a MetricCollection: who shares a state, who must not, and that sharing changes no value."""

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_leep import EEPAccuracy, HScore, LEEPMetric, LinearProbeAccuracy, NegativeConditionalEntropy
from tests._helpers.metric_cases import C, Z, batch, build, expected, values_of

GROUPS = [("leep", "leave_one_out_leep", "eep_accuracy"), ("h_score", "h_score_plain", "log_me")]
groups = pytest.mark.parametrize("names", GROUPS, ids=["outputs", "features"])


def batches_of(names):
    return [batch(names[0], n, n) for n in (30, 21, 24)]


def collection_of(names, *batches, **kwargs):
    collection = MetricCollection({name: build(name, **kwargs) for name in names})
    for data in batches:
        collection.update(*data)
    return collection


def answers(names, *batches, prefix=""):
    return {prefix + name: expected(name, *batches)["value"] for name in names}


@groups
def test_metrics_of_the_same_settings_share_one_state(names):
    collection = collection_of(names, *batches_of(names))
    assert [sorted(group) for group in collection.compute_groups.values()] == [sorted(names)]
    first, *others = collection.values(copy_state=False)
    state = "joint" if names == GROUPS[0] else "scatter"
    assert all(getattr(metric, state) is getattr(first, state) for metric in others)
    assert values_of(collection.compute()) == answers(names, *batches_of(names))


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        *((cls, {"ignore_index": label}) for cls in (LEEPMetric, LinearProbeAccuracy, HScore) for label in (-100, 0)),
        *((cls, {"keep_rows": False}) for cls in (LEEPMetric, LinearProbeAccuracy)),
        (LEEPMetric, {"from_logits": False}),
        *((NegativeConditionalEntropy, settings) for settings in ({"ignore_index": 0}, {"validate_args": False})),
    ],
)
def test_metrics_that_merely_agree_on_the_first_batch_do_not_share(cls, settings):
    collection = MetricCollection({"a": cls(2, 2), "b": cls(2, 2, **settings), "c": cls(2, 2)})
    # No label is ignored, and rows of halves are their own softmax.
    collection.update(torch.full((4, 2), 0.5), torch.tensor([1, 1, 1, 1]))
    assert sorted(sorted(group) for group in collection.compute_groups.values()) == [["a", "c"], ["b"]]


@pytest.mark.parametrize("order", [1, -1])
def test_metric_that_checks_values_is_not_led_by_one_that_does_not(order):
    metrics = {"a": LEEPMetric(C, Z, validate_args=False), "b": EEPAccuracy(C, Z)}
    collection = MetricCollection(dict(list(metrics.items())[::order]))
    first, second, _ = batches_of(GROUPS[0])
    collection.update(*first)
    with pytest.raises(ValueError, match="`preds` must hold finite logits"):
        collection.update(torch.full((2, Z), torch.nan), torch.tensor([0, 1]))
    # It is not a setting that the sums depend on.
    checked, unchecked = LEEPMetric(C, Z), LEEPMetric(C, Z, validate_args=False)
    checked.update(*first), unchecked.update(*second)
    checked.merge_state(unchecked)
    assert values_of(checked.compute()) == expected("leep", first, second)


def scored_twice(collection, members):
    """Update the collection, then lead each member through a second pass of its own."""
    for data in batches_of(GROUPS[0]):
        collection.update(*data)
    for metric in members(collection):
        score_batch = metric.second_pass()
        for data in batches_of(GROUPS[0]):
            score_batch(*data)


@pytest.mark.parametrize("copy_state", [True, False])
def test_scores_of_a_second_pass_are_not_shared(copy_state):
    collection = collection_of(GROUPS[0], keep_rows=False)
    scored_twice(collection, lambda collection: collection.values(copy_state=copy_state))
    assert values_of(collection.compute()) == answers(GROUPS[0], *batches_of(GROUPS[0]))


@pytest.mark.parametrize("other", ["eep_accuracy", "leave_one_out_leep"])
def test_group_that_would_share_the_scores_of_a_second_pass(other):
    metrics = {"a": build("leep", keep_rows=False), "b": build(other, keep_rows=False)}
    collection = MetricCollection(metrics, compute_groups=[["a", "b"]])
    scored_twice(collection, lambda collection: [next(iter(collection.values(copy_state=False)))])
    with pytest.raises(RuntimeError, match=r"shares the state of a metric .* `compute_groups`"):
        collection.compute()


@groups
@pytest.mark.parametrize("kwargs", [{"dist_sync_on_step": True}, {"compute_on_cpu": True}])
def test_forward_before_and_after_update(names, kwargs):
    first, second, third = batches_of(names)
    collection = collection_of(names, **kwargs)
    assert values_of(collection(*first)) == answers(names, first)
    collection.update(*second)
    assert values_of(collection(*third)) == answers(names, third)  # members share their states by now
    assert values_of(collection.compute()) == answers(names, first, second, third)
    collection.update(*second)
    assert values_of(collection.compute()) == answers(names, first, second, third, second)


@groups
def test_pooled_values_of_members_that_share(names):
    gather = {"dist_sync_fn": lambda value, group: [value] * 2, "distributed_available_fn": lambda: True}
    first, second, _ = batches_of(names)
    collection = collection_of(names, first, **gather)
    # Two processes with the same rows; the members are synchronised and restored, one after the other.
    assert values_of(collection.compute()) == answers(names, first, first)
    collection.update(*second)
    assert values_of(collection.compute()) == answers(names, *[first, second] * 2)
    assert int(collection[names[0]].class_counts.sum()) == 51
