"""States of every metric of the library: saved, loaded and merged."""

import pickle
import warnings

import pytest
import torch
from torch import nn
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from lightning_leep import HScore, LEEPMetric
from tests._helpers.metric_cases import (
    CASES,
    OUTPUTS,
    TWO_PASS,
    C,
    D,
    Z,
    batch,
    batches_of,
    build,
    each_state,
    expected,
    filled,
    may_not_converge,
    values_of,
)
from tests._helpers.metric_state import assert_unchanged, snapshot

pytestmark = may_not_converge


class TestStateDict:
    @each_state
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

    @each_state
    def test_nothing_is_saved_unless_asked_for_and_a_module_around_it_keeps_the_names(self, name):
        metric, other = filled(name, batch(name, 30)), nn.ModuleDict({"m": build(name)})
        assert metric.state_dict() == {}
        before = snapshot(metric)
        metric.load_state_dict({})
        assert_unchanged(metric, before)
        metric.persistent(True)
        state = nn.ModuleDict({"m": metric}).state_dict()
        assert set(state) == {f"m.{name}" for name in metric.metric_state}
        other.load_state_dict(state)
        assert other["m"].update_called
        assert values_of(other["m"].compute()) == expected(name, batch(name, 30))

    @each_state
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
    @each_state
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

    @each_state
    def test_with_an_empty_one_and_with_itself(self, name):
        data, metric = batch(name, 30), build(name, dist_sync_on_step=True)
        metric.merge_state(filled(name, data))
        metric.merge_state(build(name))
        metric.merge_state(metric)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert values_of(metric.compute()) == expected(name, data, data)

    @each_state
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

    @each_state
    @pytest.mark.parametrize("synchronised", ["this", "other"])
    def test_synchronised_metric_is_refused(self, name, synchronised):
        this, other = filled(name, batch(name, 30)), filled(name, batch(name, 21, 1))
        chosen = this if synchronised == "this" else other
        chosen.sync(dist_sync_fn=lambda value, group: [value], distributed_available=lambda: True)
        with pytest.raises(TorchMetricsUserError, match="HINT: call `unsync` first"):
            this.merge_state(other)
