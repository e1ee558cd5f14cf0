"""LEEPMetric(top_k=k) on several processes: the same interval as on one, with bytes that do not grow with n."""

import pytest
import torch

from lightning_leep import LEEPMetric
from lightning_leep.functional.log_sum_bounds import NUM_HALVINGS
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.references import random_task, reference_leep

SHARDS = {2: [(0, 70), (70, 100)], 3: [(0, 64), (64, 64), (64, 100)]}


def shard(rank, world_size, top_k, **kwargs):
    logits, labels = random_task(100, 20, 4)
    start, end = SHARDS[world_size][rank] if world_size in SHARDS else (0, 100)
    metric = LEEPMetric(4, 20, top_k=top_k, **kwargs)
    for i in range(start, end, 16):
        metric.update(logits[i : min(i + 16, end)], labels[i : min(i + 16, end)])
    return metric


def on_rank(rank, world_size, top_k):
    """Value and interval in the ways that a metric is synchronised, and what it holds meanwhile and afterwards."""
    metric = shard(rank, world_size, top_k)
    before = list(metric.rows)
    results = {"automatic": (metric.compute(), *metric.interval())}
    metric.sync()
    results["manual"] = (torch.nan, *metric.interval())
    held = [metric._is_synced, len(metric.rows)]
    metric.unsync()
    held.append(len(before) == len(metric.rows) and all(a is b for a, b in zip(before, metric.rows, strict=True)))
    gathering = shard(rank, world_size, top_k, dist_sync_fn=gather)
    results["gathered"] = (gathering.compute(), *gathering.interval())
    on_step = LEEPMetric(4, 20, top_k=top_k, dist_sync_on_step=True)
    logits, labels = random_task(100, 20, 4)
    step = on_step(logits[rank::world_size], labels[rank::world_size])
    results["on step"] = (step, *on_step.interval())
    local = shard(rank, world_size, top_k, sync_on_compute=False)
    own = None if not local.rows else (local.compute(), *local.interval())
    return results, held, own


def on_rank_for_each(rank, world_size, all_top_k):
    return [on_rank(rank, world_size, top_k) for top_k in all_top_k]


def gather(value, group=None):
    gathered = [torch.zeros_like(value) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(gathered, value)
    return gathered


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_equal_one_process(world_size):
    """Uneven shards, an empty one among three."""
    all_top_k = (1, 4, 20)
    logits, labels = random_task(100, 20, 4)
    for rank, of_each in enumerate(run_processes(on_rank_for_each, world_size, all_top_k)):
        start, end = SHARDS[world_size][rank]
        for top_k, (results, held, own) in zip(all_top_k, of_each, strict=True):
            one = shard(0, 1, top_k)
            value, low, high = (v.item() for v in (one.compute(), *one.interval()))
            for way, got in results.items():
                assert [float(end) for end in got[1:]] == pytest.approx([low, high], abs=1e-10), way
                if way != "manual":
                    assert got[1] <= got[0] <= got[2]
                    assert float(got[0]) == pytest.approx(value, abs=1e-12), way
            assert held == [True, 0, True]
            assert (own is None) == (start == end)
            if own is not None:
                assert own[1] <= reference_leep(logits[start:end].softmax(dim=1), labels[start:end], 4) <= own[2]
                assert own[1] <= own[0] <= own[2]


def bytes_of_a_compute(rank, world_size):
    traffic = []
    for n in (10, 2000):
        metric = LEEPMetric(4, 20, top_k=3)
        if rank == 0:
            metric.update(*random_task(n, 20, 4))
        with counted_traffic() as sent:
            metric.compute()
        traffic.append(sent)
    return traffic


@pytest.mark.distributed
def test_bytes_that_cross_do_not_grow_with_n():
    for small, large in run_processes(bytes_of_a_compute, 2):
        assert small == large
        assert {name for name, *_ in large} == {"all_reduce"}
        # Two joints, class counts, score sums, bounds pooled before, [2, C] for each step of the search, its result.
        assert sum(size for *_, size in large) == 8 * (2 * 4 * 20 + 4 + 3 + 2 + (NUM_HALVINGS + 1) * 2 * 4 + 4)
