"""In a MetricCollection: who shares a state, who must not, and that sharing changes no value."""

import copy
import pickle

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_leep import EEPAccuracy, LEEPMetric
from tests._helpers.metric_state import assert_unchanged, snapshot
from tests._helpers.references import random_task, reference_eep_accuracy, reference_leep, reference_softmax

BATCHES = [(preds.double(), labels) for preds, labels in (random_task(n, 5, 3, n) for n in (30, 11, 24))]


def collection_of(**kwargs):
    return MetricCollection([LEEPMetric(3, 5, **kwargs), EEPAccuracy(3, 5, **kwargs)])


def expected(*batches, prefix=""):
    theta = reference_softmax(torch.cat([preds for preds, _ in batches]))
    labels = torch.cat([labels for _, labels in batches])
    return {
        f"{prefix}LEEPMetric": pytest.approx(reference_leep(theta, labels, 3), abs=1e-12),
        f"{prefix}EEPAccuracy": pytest.approx(reference_eep_accuracy(theta, labels, 3), abs=1e-12),
    }


def values_of(result):
    return {name: value.item() for name, value in result.items()}


def groups_of(**metrics):
    """Compute groups after a first batch on which all of the metrics agree."""
    collection = MetricCollection(metrics)
    collection.update(torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1]))
    return sorted(sorted(group) for group in collection.compute_groups.values())


def test_metrics_of_the_same_settings_share_one_state():
    collection = collection_of()
    for batch in BATCHES:
        collection.update(*batch)
    assert collection.compute_groups == {0: ["LEEPMetric", "EEPAccuracy"]}
    first, second = collection.values(copy_state=False)
    assert first.rows is second.rows
    assert first.joint is second.joint
    assert values_of(collection.compute()) == expected(*BATCHES)


@pytest.mark.parametrize(
    "settings",
    [
        {"ignore_index": -100},
        {"ignore_index": 0},
        {"from_logits": False},
        {"keep_rows": False},
    ],
)
def test_metrics_that_merely_agree_on_the_first_batch_do_not_share(settings):
    collection = MetricCollection({"a": LEEPMetric(2, 2), "b": LEEPMetric(2, 2, **settings)})
    # no label is ignored, and rows of halves are their own softmax
    collection.update(torch.full((4, 2), 0.5), torch.tensor([1, 1, 1, 1]))
    assert sorted(collection.compute_groups.values()) == [["a"], ["b"]]


@pytest.mark.parametrize("order", [1, -1])
def test_metric_that_checks_values_is_not_led_by_one_that_does_not(order):
    metrics = {"a": LEEPMetric(3, 5, validate_args=False), "b": EEPAccuracy(3, 5)}
    collection = MetricCollection(dict(list(metrics.items())[::order]))
    collection.update(*BATCHES[0])
    with pytest.raises(ValueError, match="`preds` must hold finite logits"):
        collection.update(torch.full((2, 5), torch.nan), torch.tensor([0, 1]))
    # It is not a setting that the sums depend on.
    checked, unchecked = LEEPMetric(3, 5), LEEPMetric(3, 5, validate_args=False)
    checked.update(*BATCHES[0]), unchecked.update(*BATCHES[1])
    checked.merge_state(unchecked)
    assert checked.compute().item() == expected(*BATCHES[:2])["LEEPMetric"]


def test_settings_that_change_no_state_share():
    plain, left_out = LEEPMetric(2, 2), LEEPMetric(2, 2, leave_one_out=True)
    assert groups_of(plain=plain, left_out=left_out, accuracy=EEPAccuracy(2, 2)) == [["accuracy", "left_out", "plain"]]


def scored_twice(collection, members):
    """Update the collection, then lead each member through a second pass of its own."""
    for batch in BATCHES:
        collection.update(*batch)
    for metric in members(collection):
        score_batch = metric.second_pass()
        for batch in BATCHES:
            score_batch(*batch)


@pytest.mark.parametrize("copy_state", [True, False])
def test_scores_of_a_second_pass_are_not_shared(copy_state):
    metrics = {"plain": LEEPMetric, "left out": LEEPMetric, "accuracy": EEPAccuracy}
    options = {"plain": {}, "left out": {"leave_one_out": True}, "accuracy": {}}
    collection = MetricCollection({name: metrics[name](3, 5, keep_rows=False, **options[name]) for name in metrics})
    scored_twice(collection, lambda collection: collection.values(copy_state=copy_state))
    expected = {}
    for name, cls in metrics.items():
        single = cls(3, 5, **options[name])
        for batch in BATCHES:
            single.update(*batch)
        expected[name] = pytest.approx(single.compute().item(), abs=1e-12)
    assert values_of(collection.compute()) == expected


@pytest.mark.parametrize(("cls", "options"), [(EEPAccuracy, {}), (LEEPMetric, {"leave_one_out": True})])
def test_group_that_would_share_the_scores_of_a_second_pass(cls, options):
    metrics = {"a": LEEPMetric(3, 5, keep_rows=False), "b": cls(3, 5, keep_rows=False, **options)}
    collection = MetricCollection(metrics, compute_groups=[["a", "b"]])
    scored_twice(collection, lambda collection: [next(iter(collection.values(copy_state=False)))])
    with pytest.raises(RuntimeError, match=r"shares the scores of a metric .* `compute_groups`"):
        collection.compute()


def test_value_of_each_after_a_second_batch_on_which_they_differ():
    metrics = {"all": LEEPMetric(3, 5), "without 2": LEEPMetric(3, 5, ignore_index=2)}
    collection = MetricCollection(metrics)
    (preds, labels), second = BATCHES[:2]
    first = preds[labels != 2], labels[labels != 2]
    collection.update(*first)
    collection.update(*second)
    theta, labels = reference_softmax(torch.cat([first[0], second[0]])), torch.cat([first[1], second[1]])
    kept = labels != 2
    assert values_of(collection.compute()) == {
        "all": pytest.approx(reference_leep(theta, labels, 3), abs=1e-12),
        "without 2": pytest.approx(reference_leep(theta[kept.numpy()], labels[kept], 3), abs=1e-12),
    }


@pytest.mark.parametrize("kwargs", [{}, {"dist_sync_on_step": True}, {"compute_on_cpu": True}])
def test_forward_before_and_after_update(kwargs):
    collection = collection_of(**kwargs)
    assert values_of(collection(*BATCHES[0])) == expected(BATCHES[0])
    collection.update(*BATCHES[1])
    assert values_of(collection(*BATCHES[2])) == expected(BATCHES[2])  # members share their lists by now
    assert values_of(collection.compute()) == expected(*BATCHES)
    collection.update(*BATCHES[1])
    assert values_of(collection.compute()) == expected(*BATCHES, BATCHES[1])


def test_metric_added_later():
    collection = collection_of()
    collection.update(*BATCHES[0])
    collection.add_metrics({"later": LEEPMetric(3, 5)})
    collection.update(*BATCHES[1])  # each for itself again, to form the groups anew
    collection.update(*BATCHES[2])
    values = values_of(collection.compute())
    assert values.pop("later") == expected(*BATCHES[1:])["LEEPMetric"]
    assert values == expected(*BATCHES)


def test_metric_taken_out_is_a_copy():
    collection = collection_of()
    collection.update(*BATCHES[0])
    taken = collection["LEEPMetric"]
    assert taken.compute().item() == expected(BATCHES[0])["LEEPMetric"]
    taken.update(*BATCHES[1])
    assert collection["EEPAccuracy"].compute().item() == expected(BATCHES[0])["EEPAccuracy"]
    for _, metric in collection.items():
        assert len(metric.rows) == len(metric.labels)


def test_reset():
    collection = collection_of()
    collection.update(*BATCHES[0])
    held = collection["LEEPMetric"].clone()
    collection.compute()
    collection.reset()
    assert all(metric.rows == [] and not metric.update_called for metric in collection.values())
    for batch in BATCHES[1:]:
        collection.update(*batch)
    assert values_of(collection.compute()) == expected(*BATCHES[1:])
    assert held.compute().item() == expected(BATCHES[0])["LEEPMetric"]


def test_reset_of_one_member_leaves_the_others_their_rows():
    collection = collection_of()
    collection.update(*BATCHES[0])
    first, second = collection.values(copy_state=False)
    first.reset()
    assert second.compute().item() == expected(BATCHES[0])["EEPAccuracy"]


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c)), lambda c: c.clone(prefix="val/")]
)
def test_copies_are_independent(duplicate):
    collection = collection_of()
    collection.update(*BATCHES[0])
    copied = duplicate(collection)
    copied.update(*BATCHES[1])
    collection.update(*BATCHES[2])
    assert values_of(copied.compute()) == expected(*BATCHES[:2], prefix=copied.prefix or "")
    assert values_of(collection.compute()) == expected(BATCHES[0], BATCHES[2])


def test_state_dict():
    collection, loaded = collection_of(), collection_of()
    collection.persistent(True)
    collection.update(*BATCHES[0])
    loaded.load_state_dict(collection.state_dict())
    assert values_of(loaded.compute()) == expected(BATCHES[0])
    loaded.update(*BATCHES[1])
    assert values_of(loaded.compute()) == expected(*BATCHES[:2])


@pytest.mark.parametrize("method", ["update", "forward"])
def test_bad_batch_changes_no_member(method):
    collection = collection_of()
    collection.update(*BATCHES[0])
    before = {name: snapshot(metric) for name, metric in collection.items(copy_state=False)}
    with pytest.raises(ValueError, match="labels in"):
        getattr(collection, method)(BATCHES[1][0], torch.full((11,), 3))
    for name, metric in collection.items(copy_state=False):
        assert_unchanged(metric, before[name])
    collection.update(*BATCHES[1])
    assert values_of(collection.compute()) == expected(*BATCHES[:2])


def test_pooled_values_of_members_that_share():
    collection = collection_of(dist_sync_fn=lambda value, group: [value] * 3, distributed_available_fn=lambda: True)
    for seen in (BATCHES[:1], BATCHES[:2]):
        collection.update(*seen[-1])
        # three processes with the same rows; both members are synchronised and restored, one after the other
        assert values_of(collection.compute()) == expected(*seen)
    assert int(collection["LEEPMetric"].class_counts.sum()) == 41


def test_plots_of_all_members():
    pytest.importorskip("matplotlib.pyplot").switch_backend("agg")
    collection = collection_of()
    collection.update(*BATCHES[0])
    assert len(collection.plot()) == 2
