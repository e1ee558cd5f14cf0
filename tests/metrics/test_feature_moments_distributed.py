"""H-score, LogME and N-LEEP on several processes: equal to one, with bytes that do not grow with the rows."""

import itertools
import warnings

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_leep.functional.h_score import h_score
from lightning_leep.functional.log_me import log_me
from lightning_leep.metrics.h_score import HScore
from lightning_leep.metrics.log_me import LogME
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.metric_state import assert_unchanged, snapshot
from tests.metrics.test_feature_moments import CASES, C, D, build, expected, rows

#: Rows of each rank: even, uneven, one empty.
SHARDS = {2: [(45, 45), (70, 20), (90, 0), (0, 90)], 3: [(30, 30, 30), (80, 0, 10), (0, 1, 89)]}


def gather_and_count(value, group=None):
    """A user's own gather."""
    gathered = [torch.zeros_like(value) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(gathered, value, group=group)
    return gathered


def metrics_on_shards(rank, world_size):
    """Values of every case on every split, and what torchmetrics' uses leave behind."""
    results = {}
    features, target = rows(mean=1e4)
    for case in CASES:
        for shards in SHARDS[world_size]:
            mine = features.split(list(shards))[rank], target.split(list(shards))[rank]
            metric = build(case)
            for batch, labels in zip(mine[0].split(20), mine[1].split(20), strict=True):
                metric.update(batch, labels)  # an empty shard is one empty batch
            before = snapshot(metric)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a rank without rows has nothing to warn of when the others have some
                results[case, shards] = metric.compute().item()
            before["_computed"] = metric._computed
            assert_unchanged(metric, before)  # local again
            custom = build(case, dist_sync_fn=gather_and_count)
            custom.update(*mine)
            results[case, shards, "custom"] = custom.compute().item()
        local = build(case, sync_on_compute=False)
        local.update(features[rank::world_size], target[rank::world_size])
        results[case, "local"] = local.compute().item()
        manual = build(case, sync_on_compute=False)
        manual.update(features[rank::world_size], target[rank::world_size])
        manual.sync()
        results[case, "manual"] = manual.compute().item()
        assert not manual._is_synced
        on_step = build(case, dist_sync_on_step=True)
        results[case, "step"] = on_step(features[rank::world_size], target[rank::world_size]).item()
    return results


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_equal_one(world_size):
    features, target = rows(mean=1e4)
    by_rank = run_processes(metrics_on_shards, world_size)
    for rank, results in enumerate(by_rank):
        for (case, *what), value in results.items():
            local = what == ["local"]
            data = (features[rank::world_size], target[rank::world_size]) if local else (features, target)
            assert value == pytest.approx(expected(case, *data), rel=1e-8), (rank, case, what)


def bytes_sent(rank, world_size):
    """By case and number of rows."""
    result = {}
    for case, n in itertools.product(CASES, (400, 4000)):
        metric = build(case, **({"max_fit_rows": 50} if case == "nleep" else {}))
        features, target = rows(n)
        metric.update(features[rank::world_size], target[rank::world_size])
        with counted_traffic() as sent:
            metric.compute()
        result[case, n] = sum(size for _, _, size in sent)
    return result


@pytest.mark.distributed
def test_traffic_does_not_grow_with_the_rows():
    for sent in run_processes(bytes_sent, 2):
        assert all(sent[case, 400] == sent[case, 4000] for case in CASES)
        # The count and the mean, the class counts, and the sums about the mean.
        moments = 8 * (1 + D + C + C * D + D * D + D + 1)
        assert sent["h_score", 400] == sent["log_me", 400] == moments
        # 50 rows of 2 components and their keys, sent and received twice over, and what torchmetrics' gather adds.
        assert moments < sent["nleep", 400] < moments + 3 * 50 * 3 * 8 + 500


def group_of_two(rank, world_size):
    group = torch.distributed.new_group([0, 1])
    features, target = rows()
    metric = build("log_me", process_group=group)
    if rank == 2:
        return None
    metric.update(features[rank::2], target[rank::2])
    collection = MetricCollection([HScore(C, D, process_group=group), LogME(C, D, process_group=group)])
    collection.update(features[rank::2], target[rank::2])
    return metric.compute().item(), {name: value.item() for name, value in collection.compute().items()}


@pytest.mark.distributed
def test_process_group_and_collection():
    features, target = rows()
    for value, values in run_processes(group_of_two, 3)[:2]:
        assert value == pytest.approx(log_me(features, target, C).item(), rel=1e-9)
        assert values == {
            "HScore": pytest.approx(h_score(features, target, C).item(), rel=1e-9),
            "LogME": pytest.approx(log_me(features, target, C).item(), rel=1e-9),
        }
