"""Real gloo processes with uneven shards, one of them empty: equal to one process, and rows never travel."""

import functools
import warnings

import pytest
import torch
import torch.distributed as dist
from torchmetrics import MetricCollection
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_leep import EEPAccuracy, LEEPMetric
from lightning_leep.functional import leep
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.references import random_task, reference_eep_accuracy, reference_leep, reference_softmax

pytestmark = pytest.mark.distributed

C, Z = 4, 6
EXACT = {"rel": 1e-12, "abs": 1e-12}
#: Rows of each rank, by number of processes; one rank has none.
SHARDS = {2: (0, 37), 3: (25, 0, 8)}


def task(world_size):
    preds, labels = random_task(sum(SHARDS[world_size]), Z, C)
    labels[labels == 2] = 1  # an absent class
    return preds.double(), labels


def shard_of(rank, world_size):
    preds, labels = task(world_size)
    return preds.split(SHARDS[world_size])[rank], labels.split(SHARDS[world_size])[rank]


def later_rows(rank):
    preds, labels = random_task(3 + rank, Z, C, seed=rank + 1)
    return preds.double(), labels


def local(rows):
    """What a rank says of its own rows alone."""
    return leep(*rows, C).item() if len(rows[1]) else None


def filled(shard, batch_size=5, cls=LEEPMetric, **kwargs):
    metric = cls(C, Z, **kwargs)
    for rows, labels in zip(shard[0].split(batch_size), shard[1].split(batch_size), strict=True):
        if len(labels):  # a rank without rows never calls `update`
            metric.update(rows, labels)
    return metric


def check_everything(rank, world_size):
    warnings.simplefilter("ignore")  # a rank without rows is warned of it
    shard, found = shard_of(rank, world_size), {}
    found["compute"] = filled(shard).compute().item()
    found["accuracy"] = filled(shard, cls=EEPAccuracy).compute().item()
    found["leave one out"] = filled(shard, leave_one_out=True).compute().item()
    gather = functools.partial(gather_all_tensors)
    found["gather of the user's own"] = filled(shard, dist_sync_fn=gather).compute().item()

    metric = filled(shard)
    rows = list(metric.rows)
    metric.compute()
    found["unsynchronised after compute"] = (
        not metric._is_synced
        and all(a is b for a, b in zip(metric.rows, rows, strict=True))
        and int(metric.class_counts.sum()) == len(shard[1])
        and not metric.score_sums.any()
    )
    metric.update(*later_rows(rank))
    found["updated after compute"] = metric.compute().item()
    with counted_traffic() as sent:
        metric.compute()
    found["traffic of a cached value"] = sent
    metric.reset()
    found["after reset"] = metric.compute().isnan().item()

    metric = filled(shard, sync_on_compute=False)
    found["sync_on_compute=False"] = metric.compute().item() if len(shard[1]) else None
    metric.sync()
    found["rows while synchronised"] = len(metric.rows)
    metric.unsync()
    metric.sync()
    metric._computed = None
    found["manual sync"] = metric.compute().item()

    two_pass = filled(shard, keep_rows=False)
    two_pass.second_pass()(*shard)
    found["two passes"] = two_pass.compute().item()

    for on_step in (False, True):
        metric = LEEPMetric(C, Z, dist_sync_on_step=on_step)
        value = metric(*shard)
        found[f"forward, dist_sync_on_step={on_step}"] = value.item() if len(shard[1]) or on_step else None
        found[f"compute after it, dist_sync_on_step={on_step}"] = metric.compute().item()

    collection = MetricCollection([LEEPMetric(C, Z), EEPAccuracy(C, Z)])
    collection.update(*shard)
    collection.update(*shard)
    found["collection"] = {name: value.item() for name, value in collection.compute().items()}

    pair = dist.new_group([0, 1])
    if rank < 2:
        found["process_group"] = filled(shard, process_group=pair).compute().item()
        metric = filled(shard, sync_on_compute=False)
        metric.sync(process_group=pair)
        found["process_group of sync"] = metric.compute().item()

    found["no row anywhere"] = LEEPMetric(C, Z).compute().isnan().item()
    found["ignored rows alone"] = LEEPMetric(C, Z, ignore_index=-100)
    found["ignored rows alone"].update(shard[0], torch.full_like(shard[1], -100))
    found["ignored rows alone"] = found["ignored rows alone"].compute().isnan().item()

    found["traffic"] = {}
    for n in (10, 2000):
        metric = filled(random_task(n + rank, Z, C, seed=rank), batch_size=100)
        with counted_traffic() as sent:
            metric.compute()
        found["traffic"][n] = sent
    return found


@pytest.fixture(scope="module", params=[2, 3])
def results(request):
    return request.param, run_processes(check_everything, request.param)


def same(results, name, value):
    world_size, found = results
    assert [by_rank[name] for by_rank in found] == [pytest.approx(value, **EXACT)] * world_size


def truth(world_size, reference=reference_leep):
    preds, labels = task(world_size)
    return reference(reference_softmax(preds), labels, C)


@pytest.mark.parametrize("name", ["compute", "gather of the user's own", "manual sync", "two passes"])
def test_every_rank_answers_as_one_process_with_all_rows(results, name):
    same(results, name, truth(results[0]))


def test_accuracy(results):
    same(results, "accuracy", truth(results[0], reference_eep_accuracy))


def test_leave_one_out(results):
    same(results, "leave one out", leep(*task(results[0]), C, leave_one_out=True).item())


def test_local_state_is_back_after_compute(results):
    assert all(found["unsynchronised after compute"] for found in results[1])


def test_updates_after_compute_count(results):
    world_size, _ = results
    parts = [task(world_size), *(later_rows(rank) for rank in range(world_size))]
    theta = torch.cat([torch.from_numpy(reference_softmax(preds)) for preds, _ in parts])
    expected = reference_leep(theta, torch.cat([labels for _, labels in parts]), C)
    same(results, "updated after compute", expected)


def test_reset_and_no_rows_at_all_are_not_a_number(results):
    for found in results[1]:
        assert (found["after reset"], found["no row anywhere"], found["ignored rows alone"]) == (True, True, True)


@pytest.mark.parametrize("name", ["sync_on_compute=False", "forward, dist_sync_on_step=False"])
def test_value_of_the_own_rows_when_nothing_is_pooled(results, name):
    world_size, found = results
    for rank in range(world_size):
        if SHARDS[world_size][rank]:
            assert found[rank][name] == pytest.approx(local(shard_of(rank, world_size)), **EXACT)


def test_forward_pools_each_step_when_asked(results):
    same(results, "forward, dist_sync_on_step=True", truth(results[0]))


@pytest.mark.parametrize("on_step", [True, False])
def test_compute_after_forward(results, on_step):
    same(results, f"compute after it, dist_sync_on_step={on_step}", truth(results[0]))


def test_collection_with_compute_groups(results):
    world_size, found = results
    expected = {"LEEPMetric": truth(world_size), "EEPAccuracy": truth(world_size, reference_eep_accuracy)}
    for by_rank in found:
        assert by_rank["collection"] == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("name", ["process_group", "process_group of sync"])
def test_only_members_of_a_process_group_are_pooled(results, name):
    world_size, found = results
    rows = sum(SHARDS[world_size][:2])
    expected = local(tuple(t[:rows] for t in task(world_size)))
    assert [found[rank][name] for rank in (0, 1)] == [pytest.approx(expected, **EXACT)] * 2


def test_mistake_rows_gathered_on_every_rank(results):
    # the joint, the class counts, and number, sum and squares of the scores: nothing grows with the number of rows
    for found in results[1]:
        wanted = [("all_reduce", (C, Z), 8 * C * Z), ("all_reduce", (C,), 8 * C), ("all_reduce", (3, 1), 24)]
        assert found["traffic"] == {10: wanted, 2000: wanted}
        assert found["rows while synchronised"] == 0


def test_a_cached_value_sends_nothing(results):
    assert all(found["traffic of a cached value"] == [] for found in results[1])


def change_between_passes(rank, world_size):
    """A second pass with the rows dealt out anew, and one with another row on the last rank; an empty rank as well."""
    warnings.simplefilter("ignore")
    preds, labels = task(world_size)
    outcomes = []
    for moved in (preds, torch.cat([preds[:-1], preds[-1:] + torch.linspace(0, 3, Z)])):
        metric = filled(shard_of(rank, world_size), keep_rows=False)
        score_batch = metric.second_pass()
        sizes = SHARDS[world_size][::-1]
        if sizes[rank]:
            score_batch(moved.split(sizes)[rank], labels.split(sizes)[rank])
        try:
            outcomes.append(metric.compute().item())
        except ValueError as error:
            outcomes.append(str(error))
    return outcomes


@pytest.mark.parametrize("world_size", [2, 3])
def test_second_pass_has_the_rows_of_the_first_on_all_processes_together(world_size):
    preds, labels = task(world_size)
    expected = pytest.approx(reference_leep(reference_softmax(preds), labels, C), **EXACT)
    for same, other in run_processes(change_between_passes, world_size):
        assert same == expected
        assert "rows whose sums differ" in other
