"""LinearProbeAccuracy on real processes: one value for all, and rows never travel."""

import pytest
import torch

from lightning_leep import LinearProbeAccuracy
from lightning_leep.functional import linear_probe
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.metric_state import assert_unchanged, snapshot
from tests.metrics.test_linear_probe import C, D, filled, rows, values_of

pytestmark = pytest.mark.distributed

SHARDS = {2: [(45, 45), (89, 1), (0, 90)], 3: [(30, 50, 10), (80, 0, 10), (0, 1, 89)]}


def gather_and_count(value, group=None):
    """A user's own gather."""
    gathered = [torch.zeros_like(value) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(gathered, value, group=group)
    return gathered


def on_shards(rank, world_size):
    found, data = {}, rows(mean=1e3)
    for shards in SHARDS[world_size]:
        mine = tuple(t.split(list(shards))[rank] for t in data)
        metric = filled(mine)
        before = snapshot(metric)
        found[shards, "result"] = values_of(metric.result())
        found[shards, "compute"] = metric.compute().item()
        before["_computed"] = metric._computed
        assert_unchanged(metric, before)  # local again
        found[shards, "own gather"] = filled(mine, dist_sync_fn=gather_and_count).compute().item()
        two_pass = filled(mine, keep_rows=False)
        two_pass.second_pass()(*mine)
        found[shards, "two passes"] = values_of(two_pass.result())
        manual = filled(mine, sync_on_compute=False)
        manual.sync()
        found[shards, "synchronised"] = len(manual.rows), values_of(manual.result())
        found[shards, "step"] = LinearProbeAccuracy(C, D, dist_sync_on_step=True)(*mine).item()
    return found


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_equal_one(world_size):
    expected = linear_probe(*rows(mean=1e3), C)
    probe = {name: pytest.approx(value, rel=1e-7) for name, value in values_of(expected).items()}
    for found in run_processes(on_shards, world_size):
        for (_, name), value in found.items():
            if name == "synchronised":
                assert value == (0, probe)
            else:
                assert value == (probe if isinstance(value, dict) else probe["accuracy"]), name


def bytes_sent(rank, world_size):
    sizes = []
    for n in (40, 4000):
        metric = filled(rows(n, seed=rank), batch_size=500)
        with counted_traffic() as sent:
            metric.compute()
        sizes.append(sum(size for _, _, size in sent))
    return sizes


def test_traffic_does_not_grow_with_the_rows():
    # The number of rows, the mean, the class counts, the sums about the mean; three sums of 96 scores.
    expected = 8 * (1 + D + C + (C * D + D * D + D + 1) + 3 * 96)
    assert run_processes(bytes_sent, 2) == [[expected, expected]] * 2
