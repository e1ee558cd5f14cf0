"""What every metric of the package adds to torchmetrics: precision, loading, merging, and errors without a trace."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from lightning_leep import EEPAccuracy, LEEPMetric
from lightning_leep.functional import leep
from lightning_leep.metrics import additive
from tests._helpers.metric_state import assert_unchanged, snapshot
from tests._helpers.references import random_task

EXACT = {"rel": 1e-12, "abs": 1e-12}


def filled(seed=0, n=30, cls=LEEPMetric, **kwargs):
    metric = cls(3, 5, **kwargs)
    metric.update(*random_task(n, 5, 3, seed))
    return metric


def leep_of_seeds(*seeds):
    parts = [random_task(30, 5, 3, seed) for seed in seeds]
    return leep(torch.cat([p for p, _ in parts]), torch.cat([t for _, t in parts]), 3).item()


class TestPrecision:
    @pytest.mark.parametrize(
        "convert",
        [
            lambda module: module.half(),
            lambda module: module.float(),
            lambda module: module.double(),
            lambda module: module.bfloat16(),
            lambda module: module.type(torch.float16),
            lambda module: module.to(torch.bfloat16),
            lambda module: module.to("cpu", torch.float16),
            lambda module: [m.set_dtype(torch.float16) for m in module.children()],
        ],
    )
    def test_converting_the_module_around_it_leaves_the_metric_as_it_is(self, convert):
        module = nn.ModuleDict({"metric": filled(), "unused": LEEPMetric(3, 5)})
        before = {name: snapshot(metric) for name, metric in module.items()}
        convert(module)
        for name, metric in module.items():
            assert_unchanged(metric, before[name])
            metric.reset()
            assert metric.joint.dtype == torch.float64

    def test_there_and_back_to_a_device_without_float64(self, monkeypatch):
        metric = filled()
        metric.update(*(t.double() if t.is_floating_point() else t for t in random_task(30, 5, 3, 1)))
        expected = metric.compute()
        monkeypatch.setattr(additive, "accumulation_dtype", lambda device: torch.float32)
        metric.to("cpu")
        tensors = [*metric.rows, metric.joint, metric.score_sums, metric._defaults["joint"], metric.compute()]
        assert {t.dtype for t in tensors} == {torch.float32}
        assert {t.dtype for t in (*metric.labels, metric.class_counts)} == {torch.int64}
        monkeypatch.undo()
        metric.to("cpu")
        assert {t.dtype for t in (metric.joint, metric.score_sums, metric._defaults["joint"])} == {torch.float64}
        metric._computed = None
        assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-6)

    @pytest.mark.parametrize("cls", [LEEPMetric, EEPAccuracy])
    def test_float32_sums_score_rows_that_were_moved_to_a_device_with_float64(self, cls):
        metric = filled(cls=cls)
        expected = metric.compute().item()
        metric.joint, metric._computed = metric.joint.float(), None
        assert metric.compute().item() == pytest.approx(expected, rel=1e-6)

    def test_moving_to_a_device_moves_every_state(self):
        metric = filled().to("meta")
        assert metric.device.type == "meta"
        assert {t.device.type for t in (*metric.rows, *metric.labels, metric.joint, metric.settings)} == {"meta"}
        metric.reset()
        assert metric.joint.device.type == "meta"


class TestStateDict:
    def test_round_trip_of_a_persistent_metric(self):
        metric = filled()
        metric.persistent(True)
        loaded = LEEPMetric(3, 5)
        loaded.load_state_dict(metric.state_dict())
        assert loaded.update_called
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert loaded.compute().item() == metric.compute().item()
        loaded.update(*random_task(30, 5, 3, 1))
        assert loaded.compute().item() == pytest.approx(leep_of_seeds(0, 1), **EXACT)
        assert metric.compute().item() == pytest.approx(leep_of_seeds(0), **EXACT)

    def test_a_value_from_before_loading_is_forgotten(self):
        saved, metric = filled(), filled(1)
        saved.persistent(True)
        metric.compute()
        metric.load_state_dict(saved.state_dict())
        assert metric.compute().item() == pytest.approx(leep_of_seeds(0), **EXACT)

    def test_nothing_is_saved_unless_asked_for(self):
        metric = filled()
        assert metric.state_dict() == {}
        before = snapshot(metric)
        metric.load_state_dict({})
        assert_unchanged(metric, before)

    def test_inside_a_module(self):
        module, other = nn.ModuleDict({"m": filled()}), nn.ModuleDict({"m": LEEPMetric(3, 5)})
        module["m"].persistent(True)
        assert set(module.state_dict()) == {f"m.{name}" for name in module["m"].metric_state}
        other.load_state_dict(module.state_dict())
        assert other["m"].compute().item() == module["m"].compute().item()

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (LEEPMetric(3, 6), r"`joint` must be a tensor of shape \[3, 6\], got \[3, 5\]"),
            (LEEPMetric(3, 5, from_logits=False), "other settings"),
            (LEEPMetric(3, 5, ignore_index=0), "other settings"),
            (LEEPMetric(3, 5, keep_rows=False), "other settings"),
        ],
    )
    def test_state_of_another_kind_of_metric_is_refused(self, other, message):
        metric = filled()
        metric.persistent(True)
        before = snapshot(other)
        with pytest.raises(RuntimeError, match=message):
            other.load_state_dict(metric.state_dict())
        assert_unchanged(other, before)

    def test_half_a_state_is_refused(self):
        metric = filled()
        metric.persistent(True)
        state = metric.state_dict()
        del state["labels"]
        with pytest.raises(RuntimeError, match="`labels` is missing"):
            LEEPMetric(3, 5).load_state_dict(state)


class TestMerge:
    @pytest.mark.parametrize("as_dict", [False, True])
    def test_value_is_that_of_the_rows_of_both(self, as_dict):
        first, second = filled(0), filled(1)
        assert first.compute() != second.compute()  # and cached
        first.merge_state(second.metric_state if as_dict else second)
        assert first.compute().item() == pytest.approx(leep_of_seeds(0, 1), **EXACT)
        assert first.update_count == 2
        assert second.compute().item() == pytest.approx(leep_of_seeds(1), **EXACT)
        first.update(*random_task(30, 5, 3, 2))
        assert first.compute().item() == pytest.approx(leep_of_seeds(0, 1, 2), **EXACT)

    def test_into_an_empty_metric_and_with_itself(self):
        metric = LEEPMetric(3, 5, dist_sync_on_step=True)
        metric.merge_state(filled())
        metric.merge_state(metric)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert metric.compute().item() == pytest.approx(leep_of_seeds(0, 0), **EXACT)

    @pytest.mark.parametrize(
        ("incoming", "message"),
        [
            (LEEPMetric(4, 5), r"`joint` must be a tensor of shape \[3, 5\], got \[4, 5\]"),
            (LEEPMetric(3, 5, ignore_index=-100), "other settings"),
            (LEEPMetric(3, 5, from_logits=False), "other settings"),
            (EEPAccuracy(3, 5), "must be a LEEPMetric or a dictionary of its states, got EEPAccuracy"),
            ("metric", "must be a LEEPMetric or a dictionary of its states, got str"),
            ({}, r"`rows` is missing from the states \[\]"),
            (filled().metric_state | {"rows": torch.ones(1)}, "`rows` must be a list of tensors, got Tensor"),
            (filled().metric_state | {"rows": []}, "hold 0 `rows` and 1 `labels`"),
            (filled().metric_state | {"joint": 3.0}, "`joint` must be a tensor of shape .* got float"),
            (filled().metric_state | {"score_sums": torch.ones(3, 1)}, "come from a synchronised metric"),
        ],
    )
    def test_state_of_another_kind_is_refused(self, incoming, message):
        metric = filled()
        metric.compute()
        before = snapshot(metric)
        with pytest.raises(ValueError, match=message):
            metric.merge_state(incoming)
        assert_unchanged(metric, before)

    @pytest.mark.parametrize("synchronised", ["this", "other"])
    def test_synchronised_metric_is_refused(self, synchronised):
        this, other = filled(0), filled(1)
        chosen = this if synchronised == "this" else other
        chosen.sync(dist_sync_fn=lambda value, group: [value], distributed_available=lambda: True)
        with pytest.raises(TorchMetricsUserError, match="HINT: call `unsync` first"):
            this.merge_state(other)


def fail_at(call):
    """A gather that fails the given time it is called."""
    calls = []

    def gather(value, group):
        calls.append(value)
        if len(calls) == call:
            raise ConnectionError("peer is gone")
        return [value, value]

    return gather


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("method", ["compute", "sync"])
def test_failed_synchronisation_leaves_the_local_state(method, call):
    metric = filled(dist_sync_fn=fail_at(call), distributed_available_fn=lambda: True)
    states = copy.deepcopy(metric.metric_state)
    with pytest.raises(ConnectionError, match="peer is gone"):
        metric.compute() if method == "compute" else metric.sync(dist_sync_fn=metric.dist_sync_fn)
    assert not metric._is_synced
    torch.testing.assert_close(metric.metric_state, states, rtol=0.0, atol=0.0)
    assert metric.compute().item() == pytest.approx(leep_of_seeds(0), **EXACT)  # the peer is back


@pytest.mark.parametrize("method", ["compute", "second_pass"])
def test_error_after_pooling_leaves_the_local_state(monkeypatch, method):
    sync = {"dist_sync_fn": lambda value, group: [value, value], "distributed_available_fn": lambda: True}
    metric = filled(keep_rows=method == "compute", **sync)
    states = copy.deepcopy(metric.metric_state)

    def out_of_memory(device):
        raise MemoryError

    monkeypatch.setattr(metric, "row_scorer", out_of_memory)
    with pytest.raises(MemoryError):
        getattr(metric, method)()
    assert not metric._is_synced
    torch.testing.assert_close(metric.metric_state, states, rtol=0.0, atol=0.0)
