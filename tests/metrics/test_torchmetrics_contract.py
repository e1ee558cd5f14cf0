"""Every use that torchmetrics makes of a metric, on one process."""

import copy
import pickle
import warnings

import pytest
import torch
from torchmetrics.utilities.exceptions import TorchMetricsUserError
from torchmetrics.wrappers import BootStrapper, MetricTracker, Running

from lightning_leep import EEPAccuracy, LEEPMetric
from tests._helpers.references import random_task, reference_eep_accuracy, reference_leep, reference_softmax

BATCHES = [random_task(n, 5, 3, seed) for seed, n in enumerate((30, 11, 24))]
REFERENCES = {LEEPMetric: reference_leep, EEPAccuracy: reference_eep_accuracy}
EXACT = {"rel": 1e-12, "abs": 1e-12}


@pytest.fixture(params=[LEEPMetric, EEPAccuracy])
def cls(request):
    return request.param


def expected(cls, *batches):
    theta = reference_softmax(torch.cat([preds for preds, _ in batches]))
    return pytest.approx(REFERENCES[cls](theta, torch.cat([labels for _, labels in batches]), 3), **EXACT)


def double(batch):
    return batch[0].double(), batch[1]


def filled(cls, *batches, **kwargs):
    metric = cls(3, 5, **kwargs)
    for batch in batches:
        metric.update(*double(batch))
    return metric


@pytest.mark.parametrize("kwargs", [{}, {"dist_sync_on_step": True}, {"compute_on_cpu": True}])
def test_forward_gives_the_value_of_the_batch_and_accumulates(cls, kwargs):
    metric = cls(3, 5, **kwargs)
    for batch in BATCHES:
        assert metric(*double(batch)).item() == expected(cls, batch)
    assert metric.compute().item() == expected(cls, *BATCHES)
    assert metric.update_count == len(BATCHES)


def test_update_and_forward_mix(cls):
    metric = filled(cls, BATCHES[0])
    metric(*double(BATCHES[1]))
    metric.update(*double(BATCHES[2]))
    assert metric.compute().item() == expected(cls, *BATCHES)


def test_reset_forgets_everything(cls):
    metric = filled(cls, *BATCHES)
    metric.compute()
    metric.reset()
    assert not metric.update_called
    torch.testing.assert_close(metric.metric_state, cls(3, 5).metric_state, rtol=0.0, atol=0.0)
    metric.update(*double(BATCHES[1]))
    assert metric.compute().item() == expected(cls, BATCHES[1])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: m.clone(), lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_independent(cls, duplicate):
    metric = filled(cls, BATCHES[0])
    copied = duplicate(metric)
    copied.update(*double(BATCHES[1]))
    with pytest.raises(ValueError, match="dimension 1"):
        copied(torch.rand(2, 9), torch.tensor([0, 1]))
    metric.update(*double(BATCHES[2]))
    assert copied.compute().item() == expected(cls, *BATCHES[:2])
    assert metric.compute().item() == expected(cls, BATCHES[0], BATCHES[2])


def test_hash_tells_metrics_apart(cls):
    first, second = filled(cls, BATCHES[0]), filled(cls, BATCHES[0])
    assert len({first, second, first}) == 2
    assert hash(first) != hash(second)


def test_value_is_cached_until_the_state_changes(cls):
    metric = filled(cls, BATCHES[0])
    value = metric.compute()
    assert metric.compute() is value
    metric.update(*double(BATCHES[1]))
    assert metric.compute().item() == expected(cls, *BATCHES[:2])
    uncached = filled(cls, BATCHES[0], compute_with_cache=False)
    assert uncached.compute() is not uncached.compute()


def test_constants(cls):
    assert (cls.is_differentiable, cls.higher_is_better, cls.full_state_update) == (False, True, False)
    with pytest.raises(RuntimeError, match="Can't change const `higher_is_better`"):
        cls(3, 5).higher_is_better = False


def test_arithmetic():
    difference = LEEPMetric(3, 5) - EEPAccuracy(3, 5)
    difference.update(*double(BATCHES[0]))
    parts = [filled(cls, BATCHES[0]).compute() for cls in REFERENCES]
    assert difference.compute().item() == (parts[0] - parts[1]).item()


@pytest.mark.parametrize("values", [None, "one", "several"])
def test_plot(cls, values):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    metric = cls(3, 5)
    steps = [metric(*batch) for batch in BATCHES]
    figure, axes = metric.plot({None: None, "one": steps[0], "several": steps}[values])
    shown = axes.get_lines()[0].get_ydata()
    wanted = {None: [metric.compute()], "one": steps[:1], "several": steps}[values]
    assert [float(y) for y in shown] == pytest.approx([float(value) for value in wanted])
    plt.close(figure)


class TestSync:
    """With a gather of the user's own, which stands for a second process that has seen the second batch."""

    @staticmethod
    def kwargs(cls, **more):
        other = filled(cls, BATCHES[1])
        queue = []

        def gather(value, group):
            assert group == "the group"
            if not queue:  # what the other process sends: its sums, then its scores against the pooled sums
                both = filled(cls, *BATCHES[:2])
                other_rows = copy.deepcopy(other)
                other_rows.joint, other_rows.class_counts = both.joint, both.class_counts
                queue.extend([other.joint, other.class_counts, other_rows.total_scores()])
            return [value, queue.pop(0)]

        return {"dist_sync_fn": gather, "distributed_available_fn": lambda: True, "process_group": "the group"} | more

    def test_compute_pools_and_gives_the_local_state_back(self, cls):
        metric = filled(cls, BATCHES[0], **self.kwargs(cls))
        rows = metric.rows
        assert metric.compute().item() == expected(cls, *BATCHES[:2])
        assert not metric._is_synced
        assert metric.rows[0] is rows[0]
        assert int(metric.class_counts.sum()) == len(BATCHES[0][1])

    def test_sync_on_compute_off(self, cls):
        metric = filled(cls, BATCHES[0], **self.kwargs(cls, sync_on_compute=False))
        assert metric.compute().item() == expected(cls, BATCHES[0])

    def test_forward_synchronises_when_asked_on_each_step(self, cls):
        pooled, local = (cls(3, 5, **self.kwargs(cls, dist_sync_on_step=on)) for on in (True, False))
        assert pooled(*double(BATCHES[0])).item() == expected(cls, *BATCHES[:2])
        assert local(*double(BATCHES[0])).item() == expected(cls, BATCHES[0])
        assert len(pooled.rows) == len(local.rows) == 1

    def test_manual_sync_and_unsync(self, cls):
        metric = filled(cls, BATCHES[0], **self.kwargs(cls))
        metric.sync(dist_sync_fn=metric.dist_sync_fn)
        with pytest.raises(TorchMetricsUserError, match="already been synced"):
            metric.sync()
        with pytest.raises(TorchMetricsUserError, match="shouldn't be synced"):
            metric(*BATCHES[0])
        metric.unsync()
        with pytest.raises(TorchMetricsUserError, match="already been un-synced"):
            metric.unsync()
        metric.update(*double(BATCHES[2]))
        metric.sync_on_compute = metric._to_sync = False
        assert metric.compute().item() == expected(cls, BATCHES[0], BATCHES[2])


def test_tracker_keeps_the_best(cls):
    tracker = MetricTracker(cls(3, 5))
    for batch in BATCHES:
        tracker.increment()
        tracker.update(*double(batch))
    values = [expected(cls, batch).expected for batch in BATCHES]
    assert tracker.compute_all().tolist() == pytest.approx(values, **EXACT)
    best, step = tracker.best_metric(return_step=True)
    assert (best, step) == (pytest.approx(max(values), **EXACT), values.index(max(values)))


@pytest.mark.parametrize("strategy", ["poisson", "multinomial"])
def test_bootstrap(strategy):
    boot = BootStrapper(LEEPMetric(3, 5), num_bootstraps=5, raw=True, sampling_strategy=strategy)
    for batch in BATCHES:
        boot.update(*double(batch))
    values = boot.compute()
    assert len(set(values["raw"].tolist())) == 5
    for value, metric in zip(values["raw"], boot.metrics, strict=True):
        theta, labels = torch.cat(metric.rows), torch.cat(metric.labels)
        assert value.item() == pytest.approx(reference_leep(theta, labels, 3), **EXACT)
    assert values["mean"].item() == pytest.approx(values["raw"].mean().item(), **EXACT)


def test_running_window(cls):
    running = Running(cls(3, 5), window=2)
    for batch in BATCHES:
        running(*double(batch))
    assert running.compute().item() == expected(cls, *BATCHES[1:])


def test_answers_without_a_warning(cls):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert filled(cls, *BATCHES).compute().item() == expected(cls, *BATCHES)
