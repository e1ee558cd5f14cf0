"""Every metric on real gloo processes with uneven shards, one of them empty: equal to one process, no row is sent."""

import warnings

import pytest
import torch.distributed as dist
from torchmetrics import MetricCollection

from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.metric_cases import (
    CASES,
    STATES,
    TWO_PASS,
    C,
    D,
    Z,
    batch,
    build,
    expected,
    fill,
    joined,
    values_of,
)
from tests._helpers.metric_state import assert_unchanged, snapshot

pytestmark = pytest.mark.distributed

N = 60
SHARDS = {2: (59, 1), 3: (0, 15, 45)}


#: Metrics that send a sample of the rows, with a size of it that all batches fill.
SMALL_SAMPLES = {"nleep": {"max_fit_rows": 30}, "nearest_neighbours": {"max_rows": 15}}


def whole(name):
    return batch(name, N, 0, 1e3 if CASES[name].of_features else 0.0)


def shard_of(name, shards, rank):
    return tuple(t.split(list(shards))[rank] for t in whole(name))


def filled(name, shard, **kwargs):
    """In batches of 20; a process without rows never calls `update`."""
    batches = zip(*(t.split(20) for t in shard), strict=True)
    return fill(build(name, **kwargs), *(data for data in batches if len(data[1])))


def small_sample(name):
    """The values of one process with all rows, of which all processes must choose the same sample."""
    alone = values_of(filled(name, whole(name), **SMALL_SAMPLES[name]).compute())
    return {key: pytest.approx(value, rel=1e-7) for key, value in alone.items()}


def every_use(rank, world_size):
    """By metric and use: what each process finds."""
    warnings.simplefilter("ignore")  # a process without rows is warned of it
    pair, shards, found = dist.new_group([0, 1]), SHARDS[world_size], {}
    for name in CASES:
        mine = shard_of(name, shards, rank)

        def note(use, result, name=name):
            found[name, use] = values_of(result)

        metric = filled(name, mine)
        before = snapshot(metric)
        note("compute", metric.compute())
        before["_computed"] = metric._computed
        assert_unchanged(metric, before)  # local again
        if name in TWO_PASS:
            two_pass = filled(name, mine, keep_rows=False)
            other = shard_of(name, shards[::-1], rank)  # the rows may be dealt out anew
            two_pass.second_pass()(*other)
            note("two passes", two_pass.compute())
        if name not in STATES:
            continue
        with counted_traffic() as sent:
            metric.compute()
        assert sent == []  # the value is cached
        metric.update(*batch(name, 9 + rank, rank + 1))
        note("updated after compute", metric.compute())
        note("empty batch", fill(build(name), mine).compute())
        if len(mine[1]) > 1:
            note("local", filled(name, mine, sync_on_compute=False).compute())
        manual = filled(name, mine, sync_on_compute=False)
        manual.sync()
        assert getattr(manual, "rows", []) == []
        note("manual", manual.compute())
        on_step = build(name, dist_sync_on_step=True)
        note("step", on_step(*mine))
        note("after step", on_step.compute())
        if name in TWO_PASS:
            manual = filled(name, mine, keep_rows=False, sync_on_compute=False)
            manual.second_pass(sync=True)(*other)
            manual.sync()
            note("two passes, manual", manual.compute())
        if rank < 2:
            note("group", filled(name, mine, process_group=pair).compute())
            of_sync = filled(name, mine, sync_on_compute=False)
            of_sync.sync(process_group=pair)
            note("group of sync", of_sync.compute())
        if name in SMALL_SAMPLES:
            note("small sample", filled(name, mine, **SMALL_SAMPLES[name]).compute())
        unused = build(name).compute()
        assert all(value != value for key, value in values_of(unused).items() if not key.endswith("samples"))
    return found


@pytest.mark.parametrize("world_size", [2, 3])
def test_every_process_answers_as_one_with_all_rows(world_size, request):
    later = {name: [batch(name, 9 + rank, rank + 1) for rank in range(world_size)] for name in CASES}
    by_rank = request.getfixturevalue("on_two")(every_use) if world_size == 2 else run_processes(every_use, 3)
    for rank, found in enumerate(by_rank):
        assert len(found) > len(CASES) + len(TWO_PASS) + 5 * len(STATES)
        for (name, use), values in found.items():
            data = {
                "local": shard_of(name, SHARDS[world_size], rank),
                "updated after compute": joined(whole(name), *later[name]),
                "group": tuple(t[: sum(SHARDS[world_size][:2])] for t in whole(name)),
            }.get(use.removesuffix(" of sync"), whole(name))
            wanted = small_sample(name) if use == "small sample" else expected(name, data, rel=1e-7)
            assert values == wanted, (rank, name, use)


def traffic(rank, world_size):
    sent_by = {}
    for name in CASES:
        for n in (40, 1000):
            metric = build(name, **SMALL_SAMPLES.get(name, {}))
            rows, labels = batch(name, n)
            fill(metric, *zip(rows.split(200), labels.split(200), strict=True))
            with counted_traffic() as sent:
                metric.compute()
            sent_by[name, n] = sum(size for _, _, size in sent)
    return sent_by


def test_bytes_that_are_sent_do_not_grow_with_the_rows(on_two):
    # The number of rows and the mean, the class counts, and the sums about the mean.
    moments = 8 * (1 + D + C + C * D + D * D + D + 1)
    joint, of_a_score = 8 * (C * Z + C), 8 * 3  # number, sum and sum of squares
    wanted = dict.fromkeys(("leep", "leave_one_out_leep", "eep_accuracy"), joint + of_a_score)
    wanted |= {"eep_scores": joint + 3 * of_a_score, "nce": 8 * C * Z}
    wanted |= dict.fromkeys(("h_score", "h_score_plain", "log_me"), moments)
    # For each of 48 candidates the log-likelihood, the squares of correctness, and correctness by class.
    wanted |= dict.fromkeys(("linear_probe", "feature_scores"), moments + 8 * 48 * (2 + C))
    for sent in on_two(traffic):
        assert {name: sent[name, 40] for name in wanted} == wanted
        assert all(sent[name, 40] == sent[name, 1000] for name in CASES)
        # 15 rows with label and key, sent and received twice over, and what torchmetrics' gather adds.
        assert sent["nearest_neighbours", 40] < 3 * 15 * (D + 2) * 8 + 500
        # 30 rows of 2 components and their keys, sent and received twice over, and what torchmetrics' gather adds.
        assert moments < sent["nleep", 40] < moments + 3 * 30 * 3 * 8 + 500


def collections(rank, world_size):
    warnings.simplefilter("ignore")
    found = {}
    for names in (("leep", "leave_one_out_leep", "eep_accuracy"), ("h_score", "h_score_plain", "log_me")):
        collection = MetricCollection({name: build(name) for name in names})
        mine = tuple(t[: 30 * rank] for t in whole(names[0]))  # the first process has none
        collection.update(*mine)
        collection.update(*mine)
        found |= values_of(collection.compute())
        collection.update(*mine)  # the states are local again
        found |= {f"{name} later": value for name, value in values_of(collection.compute()).items()}
    return found


def test_members_of_a_compute_group(on_two):
    for found in on_two(collections):
        for key, value in found.items():
            name = key.removesuffix(" later")
            rows = tuple(t[:30] for t in whole(name))
            assert {"value": value} == expected(name, *[rows] * (2 + (name != key)), rel=1e-7), key


def everything(rank, world_size):
    looks = (every_use, traffic, collections)
    return {look: look(rank, world_size) for look in looks}


@pytest.fixture(scope="module")
def on_two():
    """What a function above returned on each of two processes, in one start of them."""
    found = run_processes(everything, 2, timeout=150)
    return lambda function: [of_rank[function] for of_rank in found]
