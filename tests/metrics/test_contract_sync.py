"""Synchronisation of every metric of the library, with a gather that stands for several processes."""

import copy

import pytest
import torch
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from tests._helpers.metric_cases import batch, each_state, every, expected, filled, may_not_converge, values_of
from tests._helpers.metric_state import assert_unchanged, snapshot

pytestmark = may_not_converge


class TestSync:
    """A gather of the user's own, which stands for several processes with the same rows."""

    def synced(self, name, **kwargs):
        gather = {"dist_sync_fn": lambda value, group: [value] * 3, "distributed_available_fn": lambda: True}
        return filled(name, batch(name, 30), **gather | kwargs)

    @every
    def test_when_it_pools_and_that_it_gives_the_local_state_back(self, name):
        local, pooled = expected(name, batch(name, 30)), expected(name, *[batch(name, 30)] * 3)
        metric = self.synced(name)
        before = snapshot(metric)
        assert values_of(metric.compute()) == pooled
        before["_computed"] = metric._computed
        assert_unchanged(metric, before)
        assert values_of(self.synced(name, sync_on_compute=False).compute()) == local
        for on_step, wanted in ((True, pooled), (False, local)):
            metric = self.synced(name, dist_sync_on_step=on_step)
            metric.reset()
            assert values_of(metric(*batch(name, 30))) == wanted
            assert values_of(metric.compute()) == pooled

    @each_state
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

    @each_state
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
