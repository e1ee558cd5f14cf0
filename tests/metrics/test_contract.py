"""What torchmetrics promises of a metric, for every metric of the library, on one process."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torchmetrics.wrappers import BootStrapper, MetricTracker, Running

from lightning_leep.metrics import additive
from tests._helpers.metric_cases import (
    CASES,
    OUTPUTS,
    batch,
    batches_of,
    build,
    each_state,
    every,
    expected,
    fill,
    filled,
    joined,
    may_not_converge,
    values_of,
)
from tests._helpers.metric_state import AllocatedBytes, assert_unchanged, snapshot

pytestmark = may_not_converge


@pytest.mark.slow
@every
@pytest.mark.parametrize("sizes", [(40, 1, 49), (0, 90)])
def test_batches_of_any_size_give_the_value_by_definition(name, sizes):
    rows, labels = batch(name, 90)
    metric = filled(name, *zip(rows.split(sizes), labels.split(sizes), strict=True))
    result = metric.compute()
    assert values_of(result) == expected(name, (rows, labels))
    tensors = result.values() if isinstance(result, dict) else [result]
    assert {value.ndim for value in tensors} == {0}
    assert {value.dtype for value in tensors} <= {torch.float64, torch.int64}


@pytest.mark.slow
@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_input_of_low_precision_is_summed_in_float64(name, dtype):
    rows, labels = batch(name, 90)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = filled(name, (rows.to(dtype), labels)).compute()
    softmax = name in OUTPUTS and name != "nce"  # which is taken in float32
    assert values_of(value) == expected(name, (rows.to(dtype), labels), rel=1e-6 if softmax else 1e-9)


@every
def test_dense_input_and_ignored_rows(name):
    """Ignored rows may hold anything."""
    rows, labels = (t.clone() for t in batch(name, 96))
    labels[::5] = -100
    kept = rows[labels != -100], labels[labels != -100]
    rows[labels == -100] = torch.nan
    dense, target = rows.reshape(8, 3, 4, -1).permute(0, 3, 1, 2), labels.reshape(8, 3, 4)  # [N, K, d1, d2]
    metric = filled(name, *zip(dense.split(3), target.split(3), strict=True), ignore_index=-100)
    assert values_of(metric.compute()) == expected(name, kept)


@pytest.mark.slow
@each_state
@pytest.mark.parametrize("kwargs", [{"dist_sync_on_step": True}, {"compute_on_cpu": True}])
def test_forward_gives_the_value_of_the_batch_and_accumulates(name, kwargs):
    first, second, third = batches_of(name)
    metric = build(name, **kwargs)
    assert values_of(metric(*first)) == expected(name, first)
    metric.update(*second)
    assert values_of(metric(*third)) == expected(name, third)
    assert values_of(metric.compute()) == expected(name, first, second, third)
    assert metric.update_count == 3


@each_state
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(name, duplicate):
    first, second, third = batches_of(name)
    metric = filled(name, first)
    copied = duplicate(metric)
    assert hash(copied) != hash(metric)
    copied.update(*second)
    with pytest.raises(ValueError, match="dimension 1"):
        copied(torch.rand(2, 99), torch.tensor([0, 1]))
    metric.update(*third)
    assert values_of(copied.compute()) == expected(name, first, second)
    assert values_of(metric.compute()) == expected(name, first, third)


@each_state
def test_value_is_cached_until_the_state_changes_and_reset_forgets_everything(name):
    first, second, _ = batches_of(name)
    metric = filled(name, first)
    assert metric.compute() is metric.compute()
    metric.update(*second)
    assert values_of(metric.compute()) == expected(name, first, second)
    metric.reset()
    assert not metric.update_called
    torch.testing.assert_close(metric.metric_state, build(name).metric_state, rtol=0.0, atol=0.0)
    assert values_of(fill(metric, second).compute()) == expected(name, second)


@each_state
def test_states_that_others_hold_are_not_changed(name):
    """The members of a compute group share their states by reference."""
    first, second, third = batches_of(name)
    metric = filled(name, first)
    held = metric.metric_state
    before = copy.deepcopy(held)
    metric.update(*second)
    metric(*third)
    metric.merge_state(metric.clone())
    metric.sync(dist_sync_fn=lambda value, group: [value, value], distributed_available=lambda: True)
    metric.unsync()
    metric.reset()
    torch.testing.assert_close(held, before, rtol=0.0, atol=0.0)


@each_state
def test_no_graph_is_kept_and_the_batch_is_not_changed(name):
    rows, labels = (t.clone() for t in batch(name, 30))
    metric = build(name)
    value = metric(rows.requires_grad_(), labels)
    tensors = [t for state in metric.metric_state.values() for t in (state if isinstance(state, list) else [state])]
    tensors += value.values() if isinstance(value, dict) else [value]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert torch.equal(rows, batch(name, 30)[0])
    before = values_of(metric.compute())
    labels.zero_()  # a loop that uses its buffer again
    metric.update(*(t[:0] for t in batch(name, 30)))
    assert values_of(metric.compute()) == before


@each_state
def test_inference_mode(name):
    """Lightning validates in it. What is kept are inference tensors, which nothing may change in place later."""
    first, second, third = batches_of(name)
    with torch.inference_mode():
        metric = fill(build(name), first)
        metric(*second)
    metric(*third)
    assert values_of(metric.clone().compute()) == expected(name, first, second, third)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["leep", "linear_probe"])
def test_forward_costs_the_same_for_the_last_batches_as_for_the_first(name):
    metric, costs = build(name), []
    for _ in range(14):
        with AllocatedBytes() as allocated:
            metric(*batch(name, 40))
        costs.append(allocated.total)
    assert max(costs[10:]) <= max(costs[4:8])


class TestPrecision:
    @each_state
    def test_precision_of_the_module_around_it_does_not_matter(self, name):
        module = nn.ModuleDict({"metric": filled(name, batch(name, 30)), "unused": build(name)})
        before = {key: snapshot(metric) for key, metric in module.items()}
        for convert in (
            lambda: module.half(),
            lambda: module.to(torch.bfloat16),
            lambda: module.type(torch.float16),
            lambda: module.to("cpu", torch.float16),
            lambda: module.float(),
            lambda: [metric.set_dtype(torch.float16) for metric in module.values()],
        ):
            convert()
            for key, metric in module.items():
                assert_unchanged(metric, before[key])
        module["metric"].reset()
        assert values_of(fill(module["metric"], batch(name, 20)).compute()) == expected(name, batch(name, 20))

    @each_state
    def test_there_and_back_to_a_device_without_float64(self, name, monkeypatch):
        metric = filled(name, batch(name, 90))
        kinds = [state.dtype for state in metric.metric_state.values() if isinstance(state, torch.Tensor)]
        monkeypatch.setattr(additive, "accumulation_dtype", lambda device: torch.float32)
        metric.to("cpu")
        states = [t for s in metric.metric_state.values() for t in (s if isinstance(s, list) else [s])]
        assert {t.dtype for t in states} <= {torch.float32, torch.int64}
        monkeypatch.undo()
        metric.to("cpu")
        assert kinds == [state.dtype for state in metric.metric_state.values() if isinstance(state, torch.Tensor)]
        assert values_of(metric.compute()) == expected(name, batch(name, 90), rel=1e-4)

    @each_state
    def test_moving_to_a_device_moves_every_state(self, name):
        metric = filled(name, batch(name, 30)).to("meta")
        assert metric.device.type == "meta"
        states = [t for s in metric.metric_state.values() for t in (s if isinstance(s, list) else [s])]
        assert {t.device.type for t in states} == {"meta"}


class TestUses:
    @every
    def test_constants(self, name):
        metric = CASES[name].metric
        assert (metric.is_differentiable, metric.higher_is_better, metric.full_state_update) == (False, True, False)
        accuracies, at_most_zero = (
            ("eep_accuracy", "linear_probe", "nearest_neighbours", "feature_scores"),
            ("leep", "nce", "nleep"),
        )
        lower = 0.0 if name in accuracies or name.startswith("h_score") else None
        upper = 1.0 if name in accuracies else 0.0 if name in at_most_zero or name == "leave_one_out_leep" else None
        assert (metric.plot_lower_bound, metric.plot_upper_bound) == (lower, upper)

    @pytest.mark.parametrize("name", ["leep", "nce", "linear_probe"])
    def test_tracker_running_window_and_bootstrap(self, name):
        batches = batches_of(name)
        tracker, running = MetricTracker(build(name), maximize=True), Running(build(name), window=2)
        for data in batches:
            tracker.increment()
            tracker.update(*data)
            running(*data)
        values = [expected(name, data)["value"].expected for data in batches]
        assert tracker.compute_all().tolist() == pytest.approx(values, rel=1e-9)
        assert tracker.best_metric() == pytest.approx(max(values), rel=1e-9)
        assert values_of(running.compute()) == expected(name, *batches[1:])
        torch.manual_seed(0)
        boot = BootStrapper(build(name), num_bootstraps=4, raw=True)
        boot.update(*joined(*batches))
        assert len(set(boot.compute()["raw"].tolist())) > 2

    @pytest.mark.parametrize("steps", [None, 0, slice(None)])
    def test_plot(self, steps):
        plt = pytest.importorskip("matplotlib.pyplot")
        plt.switch_backend("agg")
        metric = build("leep")
        values = [metric(*data) for data in batches_of("leep")]
        figure, axes = metric.plot(None if steps is None else values[steps])
        wanted = [metric.compute()] if steps is None else values[steps] if steps != 0 else values[:1]
        assert [float(y) for y in axes.get_lines()[0].get_ydata()] == pytest.approx([float(value) for value in wanted])
        plt.close(figure)
