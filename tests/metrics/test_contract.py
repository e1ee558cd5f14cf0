"""What torchmetrics promises of a metric, for every metric of the library, on one process."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torchmetrics.utilities.exceptions import TorchMetricsUserError
from torchmetrics.wrappers import BootStrapper, MetricTracker, Running

from lightning_leep import HScore, LEEPMetric, NegativeConditionalEntropy
from lightning_leep.metrics import additive
from tests._helpers.metric_cases import (
    CASES,
    FEATURES,
    OUTPUTS,
    TWO_PASS,
    WRONG_BATCHES,
    C,
    D,
    Z,
    batch,
    build,
    expected,
    fill,
    filled,
    joined,
    values_of,
)
from tests._helpers.metric_state import AllocatedBytes, assert_unchanged, snapshot

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
every = pytest.mark.parametrize("name", CASES)
HALVES = [torch.float16, torch.bfloat16]


def batches_of(name):
    return [batch(name, n, seed) for seed, n in enumerate((30, 21, 24))]


@pytest.mark.slow
@every
@pytest.mark.parametrize("sizes", [(90,), (40, 1, 49), (0, 90), (1,) * 90])
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
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_input_of_low_precision_is_summed_in_float64(name, dtype, autocast):
    rows, labels = batch(name, 90)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
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
@every
@pytest.mark.parametrize("kwargs", [{}, {"dist_sync_on_step": True}, {"compute_on_cpu": True}])
def test_forward_gives_the_value_of_the_batch_and_accumulates(name, kwargs):
    first, second, third = batches_of(name)
    metric = build(name, **kwargs)
    assert values_of(metric(*first)) == expected(name, first)
    metric.update(*second)
    assert values_of(metric(*third)) == expected(name, third)
    assert values_of(metric.compute()) == expected(name, first, second, third)
    assert metric.update_count == 3


@every
def test_value_is_cached_until_the_state_changes(name):
    first, second, _ = batches_of(name)
    metric = filled(name, first)
    assert metric.compute() is metric.compute()
    metric.update(*second)
    assert values_of(metric.compute()) == expected(name, first, second)


@every
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: m.clone(), lambda m: pickle.loads(pickle.dumps(m))])
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


@every
def test_reset_forgets_everything(name):
    first, second, _ = batches_of(name)
    metric = filled(name, first)
    metric.compute()
    metric.reset()
    assert not metric.update_called
    torch.testing.assert_close(metric.metric_state, build(name).metric_state, rtol=0.0, atol=0.0)
    assert values_of(fill(metric, second).compute()) == expected(name, second)


@every
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


@every
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


@every
def test_inference_mode(name):
    """Lightning validates in it. What is kept are inference tensors, which nothing may change in place later."""
    first, second, third = batches_of(name)
    with torch.inference_mode():
        metric = fill(build(name), first)
        metric(*second)
    metric(*third)
    assert values_of(metric.clone().compute()) == expected(name, first, second, third)


@pytest.mark.slow
@every
def test_forward_costs_the_same_for_the_last_batches_as_for_the_first(name):
    metric, costs = build(name), []
    for _ in range(36):
        with AllocatedBytes() as allocated:
            metric(*batch(name, 40))
        costs.append(allocated.total)
    assert max(costs[24:]) <= max(costs[4:16])


class TestPrecision:
    @every
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

    @every
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

    @every
    def test_moving_to_a_device_moves_every_state(self, name):
        metric = filled(name, batch(name, 30)).to("meta")
        assert metric.device.type == "meta"
        states = [t for s in metric.metric_state.values() for t in (s if isinstance(s, list) else [s])]
        assert {t.device.type for t in states} == {"meta"}


class TestStateDict:
    @every
    def test_round_trip_of_a_persistent_metric(self, name):
        first, second, third = batches_of(name)
        metric, loaded = filled(name, first), filled(name, second)
        loaded.compute()
        metric.persistent(True)
        loaded.load_state_dict(pickle.loads(pickle.dumps(metric.state_dict())))
        assert loaded.update_called
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert values_of(loaded.compute()) == expected(name, first)
        loaded.update(*third)
        assert values_of(loaded.compute()) == expected(name, first, third)
        assert values_of(metric.compute()) == expected(name, first)

    @every
    def test_nothing_is_saved_unless_asked_for(self, name):
        metric = filled(name, batch(name, 30))
        assert metric.state_dict() == {}
        before = snapshot(metric)
        metric.load_state_dict({})
        assert_unchanged(metric, before)

    @every
    def test_inside_a_module_that_keeps_the_names(self, name):
        module, other = nn.ModuleDict({"m": filled(name, batch(name, 30))}), nn.ModuleDict({"m": build(name)})
        module["m"].persistent(True)
        assert set(module.state_dict()) == {f"m.{state}" for state in module["m"].metric_state}
        other.load_state_dict(module.state_dict())
        assert values_of(other["m"].compute()) == expected(name, batch(name, 30))

    @every
    def test_half_a_state_is_refused(self, name):
        metric = filled(name, batch(name, 30))
        metric.persistent(True)
        for missing in metric.metric_state:
            state, other = metric.state_dict(), build(name)
            del state[missing]
            before = snapshot(other)
            with pytest.raises(RuntimeError, match=f"`{missing}` is missing"):
                other.load_state_dict(state)
            assert_unchanged(other, before)


class TestMerge:
    @every
    @pytest.mark.parametrize("as_dict", [False, True])
    def test_value_is_that_of_the_rows_of_both(self, name, as_dict):
        first, second, third = batches_of(name)
        one, other = filled(name, first), filled(name, second)
        one.compute()  # and cached
        one.merge_state(other.metric_state if as_dict else other)
        assert values_of(one.compute()) == expected(name, first, second)
        assert one.update_count == 2
        one.update(*third)
        assert values_of(one.compute()) == expected(name, first, second, third)
        assert values_of(other.compute()) == expected(name, second)

    @every
    def test_with_an_empty_one_and_with_itself(self, name):
        data, metric = batch(name, 30), build(name, dist_sync_on_step=True)
        metric.merge_state(filled(name, data))
        metric.merge_state(build(name))
        metric.merge_state(metric)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert values_of(metric.compute()) == expected(name, data, data)

    @every
    def test_state_of_another_kind_is_refused(self, name):
        metric = filled(name, batch(name, 30))
        metric.compute()
        before, case = snapshot(metric), CASES[name]
        states = metric.metric_state
        kind, first = case.metric.__name__, next(iter(states))
        for incoming, message in [
            (case.metric(C + 1, D if case.of_features else Z), r"must be a tensor of shape \[.*\], got \[.*\]"),
            (case.metric(C, 9), r"must be a tensor of shape \[.*\], got \[.*\]"),
            (build(name, ignore_index=-100), "other settings"),
            ("metric", f"must be a {kind} or a dictionary of its states, got str"),
            (HScore(C, D) if name in OUTPUTS else LEEPMetric(C, Z), f"must be a {kind} or a dictionary of its states"),
            ({}, f"`{first}` is missing from the states"),
            (states | {"settings": 3.0}, "`settings` must be a tensor of shape .* got float"),
        ]:
            with pytest.raises(ValueError, match=message):
                metric.merge_state(incoming)
            assert_unchanged(metric, before)

    @pytest.mark.parametrize("name", TWO_PASS)
    def test_rows_that_do_not_fit_are_refused(self, name):
        metric = filled(name, batch(name, 30))
        before, states = snapshot(metric), metric.metric_state
        for incoming, message in [
            (states | {"rows": torch.ones(1)}, "`rows` must be a list of tensors, got Tensor"),
            (states | {"rows": []}, "hold 0 `rows` and 1 `labels`"),
            (states | {"score_sums": torch.ones_like(metric.score_sums)}, "come from a synchronised metric"),
            (build(name, keep_rows=False), "other settings|`unread`"),
        ]:
            with pytest.raises(ValueError, match=message):
                metric.merge_state(incoming)
            assert_unchanged(metric, before)

    @every
    @pytest.mark.parametrize("synchronised", ["this", "other"])
    def test_synchronised_metric_is_refused(self, name, synchronised):
        this, other = filled(name, batch(name, 30)), filled(name, batch(name, 21, 1))
        chosen = this if synchronised == "this" else other
        chosen.sync(dist_sync_fn=lambda value, group: [value], distributed_available=lambda: True)
        with pytest.raises(TorchMetricsUserError, match="HINT: call `unsync` first"):
            this.merge_state(other)


class TestBadInput:
    @every
    @pytest.mark.parametrize("method", ["update", "forward"])
    def test_bad_batch_is_one_error_and_nothing_changes(self, name, method):
        metric = filled(name, batch(name, 30))
        value = metric.compute()
        before = snapshot(metric)
        for change, error, message in WRONG_BATCHES:
            with pytest.raises(error, match=message):
                getattr(metric, method)(*change(*batch(name, 9, 1)))
            assert_unchanged(metric, before)
        assert metric.compute() is value

    @pytest.mark.parametrize("name", OUTPUTS)
    @pytest.mark.parametrize("row", [[-0.1, 1.1], [0.5, 0.6], [torch.nan, 1.0], [torch.inf, 0.0]])
    def test_what_is_no_probability(self, name, row):
        metric = build(name, from_logits=False)
        with pytest.raises(ValueError, match="`preds` must hold"):
            metric(torch.tensor([row + [0.0] * (Z - 2)]), torch.tensor([0]))
        assert not metric.update_called

    @every
    def test_bad_constructor_arguments(self, name):
        case = CASES[name]
        for arguments, message in [
            ({"num_target_classes": 0}, "`num_target_classes` must be an integer of at least 1, got 0"),
            ({"width": 2.0}, r"`num_(source_classes|features)` must be an integer of at least 1, got 2\.0"),
            ({"ignore_index": 0.5}, "`ignore_index` must be an integer or None, got 0.5"),
            ({"validate_args": None}, "`validate_args` must be True or False, got None"),
            *([({"from_logits": "yes"}, "`from_logits` must be True or False")] if name in OUTPUTS else []),
            *([({"keep_rows": 1}, "`keep_rows` must be True or False, got 1")] if name in TWO_PASS else []),
            *[
                ({key: 1}, f"`{key}` must be True or False")
                for key in ("leave_one_out", "shrinkage")
                if key in case.settings
            ],
            ({"unknown": 1}, "Unexpected keyword arguments: `unknown`"),
        ]:
            sizes = {"num_target_classes": C, "width": 2} | arguments
            width = {"num_source_classes" if name in OUTPUTS else "num_features": sizes.pop("width")}
            with pytest.raises(ValueError, match=message):
                case.metric(**(case.settings | sizes | width))

    @every
    def test_too_few_rows_are_nan_with_a_warning(self, name):
        metric = build(name)
        kind = CASES[name].metric.__name__
        with pytest.warns(UserWarning, match=rf"{kind} needs at least \d rows to say anything, got 0|before the ``upd"):
            values = values_of(metric.compute())
        assert all(value != value for key, value in values.items() if not key.endswith("samples"))
        with pytest.warns(UserWarning, match=rf"{kind} needs at least \d rows to say anything, got [01]"):
            values = values_of(metric(*batch(name, 1)))
        assert all(value != value for key, value in values.items() if not key.endswith("samples"))

    @pytest.mark.parametrize("name", FEATURES)
    @pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e80])
    def test_unchecked_features_that_are_not_finite_have_no_score(self, name, value):
        """1e80 is finite, but its fourth power is not. Shapes are always checked."""
        rows, labels = (t.clone() for t in batch(name, 90))
        rows[50, 3] = value
        metric = filled(name, (rows[:40], labels[:40]), (rows[40:], labels[40:]), validate_args=False)
        with pytest.raises(ValueError, match="`features` must have 5 features"):
            metric.update(torch.ones(2, 2), torch.tensor([0, 1]))
        values = values_of(metric.compute())
        assert all(value != value for key, value in values.items() if not key.endswith("samples"))

    @pytest.mark.parametrize("name", OUTPUTS)
    def test_checks_may_be_switched_off_for_good_batches(self, name):
        value = values_of(filled(name, batch(name, 30), validate_args=False).compute())
        assert value == expected(name, batch(name, 30))


class TestSync:
    """A gather of the user's own, which stands for several processes with the same rows."""

    def synced(self, name, **kwargs):
        gather = {"dist_sync_fn": lambda value, group: [value] * 3, "distributed_available_fn": lambda: True}
        return filled(name, batch(name, 30), **gather | kwargs)

    @every
    def test_compute_pools_and_gives_the_local_state_back(self, name):
        metric = self.synced(name)
        before = snapshot(metric)
        assert values_of(metric.compute()) == expected(name, *[batch(name, 30)] * 3)
        before["_computed"] = metric._computed
        assert_unchanged(metric, before)

    @every
    def test_when_it_pools(self, name):
        local, pooled = expected(name, batch(name, 30)), expected(name, *[batch(name, 30)] * 3)
        assert values_of(self.synced(name, sync_on_compute=False).compute()) == local
        for on_step, wanted in ((True, pooled), (False, local)):
            metric = self.synced(name, dist_sync_on_step=on_step)
            metric.reset()
            assert values_of(metric(*batch(name, 30))) == wanted
            assert values_of(metric.compute()) == pooled

    @every
    def test_manual_sync_and_unsync(self, name):
        metric = self.synced(name, sync_on_compute=False)
        metric.sync(dist_sync_fn=metric.dist_sync_fn)
        assert getattr(metric, "rows", []) == []
        with pytest.raises(TorchMetricsUserError, match="already been synced"):
            metric.sync()
        with pytest.raises(TorchMetricsUserError, match="shouldn't be synced"):
            metric(*batch(name, 30))
        metric.unsync()
        with pytest.raises(TorchMetricsUserError, match="already been un-synced"):
            metric.unsync()
        metric.update(*batch(name, 21, 1))
        assert values_of(metric.compute()) == expected(name, batch(name, 30), batch(name, 21, 1))

    @every
    @pytest.mark.parametrize("method", ["compute", "sync"])
    def test_failed_synchronisation_leaves_the_local_state(self, name, method):
        calls = []

        def gather(value, group):
            calls.append(value)
            if len(calls) == fails_at:
                raise ConnectionError("peer is gone")
            return [value] * 3

        for fails_at in (1, 2, 3):
            calls.clear()
            metric = self.synced(name, dist_sync_fn=gather)
            before = copy.deepcopy(metric.metric_state)
            if fails_at == 1 or name != "nce":  # which sends one tensor alone
                with pytest.raises(ConnectionError, match="peer is gone"):
                    metric.compute() if method == "compute" else metric.sync(dist_sync_fn=gather)
                torch.testing.assert_close(metric.metric_state, before, rtol=0.0, atol=0.0)
            assert values_of(metric.compute()) == expected(name, *[batch(name, 30)] * 3)  # the peer is back


@pytest.mark.parametrize("name", TWO_PASS)
def test_error_after_pooling_leaves_the_local_state(name, monkeypatch):
    for method in ("compute", "second_pass"):
        gather = {"dist_sync_fn": lambda value, group: [value, value], "distributed_available_fn": lambda: True}
        metric = filled(name, batch(name, 30), keep_rows=method == "compute", **gather)
        states = copy.deepcopy(metric.metric_state)

        def out_of_memory(device):
            raise MemoryError

        monkeypatch.setattr(metric, "row_scorer", out_of_memory)
        with pytest.raises(MemoryError):
            getattr(metric, method)()
        torch.testing.assert_close(metric.metric_state, states, rtol=0.0, atol=0.0)


class TestUses:
    @every
    def test_constants(self, name):
        metric = CASES[name].metric
        assert (metric.is_differentiable, metric.higher_is_better, metric.full_state_update) == (False, True, False)

    @pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("scores")])
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

    @pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("scores")])
    @pytest.mark.parametrize("steps", [None, 0, slice(None)])
    def test_plot(self, name, steps):
        plt = pytest.importorskip("matplotlib.pyplot")
        plt.switch_backend("agg")
        metric = build(name)
        values = [metric(*data) for data in batches_of(name)]
        figure, axes = metric.plot(None if steps is None else values[steps])
        wanted = [metric.compute()] if steps is None else values[steps] if steps != 0 else values[:1]
        assert [float(y) for y in axes.get_lines()[0].get_ydata()] == pytest.approx([float(value) for value in wanted])
        plt.close(figure)

    def test_arithmetic(self):
        difference = LEEPMetric(C, Z) - NegativeConditionalEntropy(C, Z)
        difference.update(*batch("leep", 30))
        values = [expected(name, batch("leep", 30))["value"].expected for name in ("leep", "nce")]
        assert difference.compute().item() == pytest.approx(values[0] - values[1], rel=1e-9)
