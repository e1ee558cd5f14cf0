"""NCE as a metric: streaming, torchmetrics' uses, compute groups, processes."""

import pickle
from copy import deepcopy

import pytest
import torch
from torchmetrics import MetricCollection, MetricTracker
from torchmetrics.wrappers import BootStrapper

from lightning_leep.functional.nce import nce
from lightning_leep.metrics.nce import NegativeConditionalEntropy
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.metric_state import assert_unchanged, snapshot
from tests._helpers.references import random_task, reference_nce

C, Z = 4, 6


def fed(n=100, batch=30, **kwargs) -> NegativeConditionalEntropy:
    metric = NegativeConditionalEntropy(C, Z, **kwargs)
    preds, target = random_task(n, Z, C)
    for rows, labels in zip(preds.split(batch), target.split(batch), strict=True):
        metric.update(rows, labels)
    return metric


def expected(n=100) -> float:
    preds, target = random_task(n, Z, C)
    return reference_nce(preds.argmax(1), target)


@pytest.mark.parametrize("batch", [1, 30, 100])
def test_streaming_equals_one_shot(batch):
    assert fed(batch=batch).compute().item() == pytest.approx(expected(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_of_the_outputs(dtype):
    preds, target = random_task(100, Z, C)
    metric = NegativeConditionalEntropy(C, Z)
    metric.update(preds.to(dtype), target)
    assert metric.compute().item() == pytest.approx(
        reference_nce(preds.to(dtype).double().argmax(1), target), rel=1e-12
    )


def test_probabilities_dense_and_ignore_index():
    preds, target = random_task(96, Z, C)
    target[::5] = 255
    metric = NegativeConditionalEntropy(C, Z, from_logits=False, ignore_index=255)
    dense, labels = preds.softmax(1).reshape(8, 12, Z).movedim(2, 1), target.reshape(8, 12)  # [N, Z, positions]
    metric.update(dense[:3], labels[:3])
    metric.update(dense[3:], labels[3:])
    keep = target != 255
    assert metric.compute().item() == pytest.approx(reference_nce(preds.argmax(1)[keep], target[keep]), rel=1e-12)


def test_forward_merge_reset_clone_pickle_and_state_dict():
    preds, target = random_task(100, Z, C)
    metric, other = NegativeConditionalEntropy(C, Z), NegativeConditionalEntropy(C, Z)
    for start in (0, 20):
        batch = preds[start : start + 20], target[start : start + 20]
        assert metric(*batch).item() == pytest.approx(nce(*batch, C).item(), rel=1e-12)
    metric.compute()
    other.update(preds[40:], target[40:])
    metric.merge_state(other)
    value = metric.compute()
    assert value.item() == pytest.approx(expected(), rel=1e-12)
    metric.persistent(True)
    loaded = NegativeConditionalEntropy(C, Z)
    loaded.persistent(True)
    loaded.load_state_dict(metric.state_dict())
    for copy in (metric.clone(), deepcopy(metric), pickle.loads(pickle.dumps(metric)), loaded):
        copy._computed = None
        assert copy.compute() == value
    metric.reset()
    assert int(metric.counts.sum()) == 0
    assert int(loaded.counts.sum()) == 100


def test_too_few_rows_are_nan_with_a_warning():
    with pytest.warns(UserWarning, match="NegativeConditionalEntropy needs at least 2 rows to say anything, got 1"):
        assert fed(n=1).compute().isnan()


@pytest.mark.parametrize(
    ("preds", "target", "error", "message"),
    [
        (torch.ones(2, Z), torch.tensor([0, C]), ValueError, r"labels in 0\.\.3"),
        (torch.ones(2, Z), torch.tensor([0.0, 1.0]), TypeError, "`target`"),
        (torch.ones(2, Z), torch.tensor([[0], [1]]), ValueError, "`target` must have shape"),
        (torch.ones(2, Z + 1), torch.tensor([0, 1]), ValueError, "`preds` must have 6 classes"),
        (torch.full((2, Z), torch.nan), torch.tensor([0, 1]), ValueError, "`preds` must hold finite logits"),
    ],
)
def test_bad_batch_leaves_the_state_as_it_was(preds, target, error, message):
    metric = fed()
    before = snapshot(metric)
    with pytest.raises(error, match=message):
        metric.update(preds, target)
    assert_unchanged(metric, before)


def test_logits_passed_as_probabilities_are_refused():
    with pytest.raises(ValueError, match="`from_logits=True`"):
        NegativeConditionalEntropy(C, Z, from_logits=False).update(*random_task(5, Z, C))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((0, Z), {}, "`num_target_classes`"),
        ((C, 0), {}, "`num_source_classes`"),
        ((C, Z), {"from_logits": "yes"}, "`from_logits`"),
        ((C, Z), {"ignore_index": 0.5}, "`ignore_index`"),
    ],
)
def test_bad_arguments(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        NegativeConditionalEntropy(*args, **kwargs)


def test_compute_groups_follow_what_is_counted():
    """Another ignored label does not count the same, even if the first batch has none; nor are values checked alike."""
    collection = MetricCollection(
        {
            "a": NegativeConditionalEntropy(C, Z),
            "b": NegativeConditionalEntropy(C, Z),
            "c": NegativeConditionalEntropy(C, Z, ignore_index=3),
            "d": NegativeConditionalEntropy(C, Z, validate_args=False),
        }
    )
    preds, target = random_task(100, Z, C)
    collection.update(preds[target < 3], target[target < 3])
    collection.update(preds, target)
    assert sorted(sorted(group) for group in collection.compute_groups.values()) == [["a", "b"], ["c"], ["d"]]
    preds, target = torch.cat([preds[target < 3], preds]), torch.cat([target[target < 3], target])
    values = collection.compute()
    assert values["a"].item() == values["b"].item() == pytest.approx(nce(preds, target, C).item(), rel=1e-12)
    assert values["c"].item() == pytest.approx(nce(preds, target, C, ignore_index=3).item(), rel=1e-12)


def test_tracker_bootstrapper_and_plot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    tracker = MetricTracker(NegativeConditionalEntropy(C, Z), maximize=True)
    for seed in (0, 1):
        tracker.increment()
        tracker.update(*random_task(50, Z, C, seed=seed))
    assert tracker.compute_all().shape == (2,)
    bootstrapper = BootStrapper(NegativeConditionalEntropy(C, Z), num_bootstraps=3)
    bootstrapper.update(*random_task(50, Z, C))
    assert bootstrapper.compute()["std"] > 0
    figure, _ = fed().plot()
    matplotlib.pyplot.close(figure)


def on_shards(rank, world_size):
    results = {}
    for n in (90, 900):
        preds, target = random_task(n, Z, C)
        for name, sizes in {
            "even": [n // world_size] * world_size,
            "uneven": [n - world_size + 1] + [1] * (world_size - 1),
            "empty": [0] * (world_size - 1) + [n],
        }.items():
            metric = NegativeConditionalEntropy(C, Z)
            metric.update(preds.split(sizes)[rank], target.split(sizes)[rank])
            before = metric.counts.clone()
            with counted_traffic() as sent:
                results[n, name] = metric.compute().item(), sum(size for _, _, size in sent)
            assert torch.equal(metric.counts, before)
    return results


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_equal_one_and_exchange_the_counts_alone(world_size):
    for results in run_processes(on_shards, world_size):
        for (n, _), (value, sent) in results.items():
            assert value == pytest.approx(expected(n), rel=1e-12)
            assert sent == 8 * C * Z
