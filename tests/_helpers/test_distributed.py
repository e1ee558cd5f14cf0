"""The launcher itself: a failing or hanging process must fail the test that started it, quickly and with the reason."""

import os
import time

import pytest
import torch
import torch.distributed as dist

from tests._helpers.distributed import ProcessFailedError, counted_traffic, run_processes

pytestmark = pytest.mark.distributed


def sum_of_ranks(rank, world_size, offset):
    with counted_traffic() as sent:
        value = torch.tensor([float(rank + offset)])
        dist.all_reduce(value)
    return value.item(), sent


def raise_on_last(rank, world_size):
    if rank == world_size - 1:
        raise KeyError("the reason")
    dist.barrier()


def hang(rank, world_size):
    time.sleep(60)


def die(rank, world_size):
    os._exit(3)


def test_results_come_back_by_rank_and_traffic_is_counted():
    assert run_processes(sum_of_ranks, 3, 10) == [(33.0, [("all_reduce", (1,), 4)])] * 3


def test_exception_of_one_process_is_raised_with_its_traceback():
    with pytest.raises(ProcessFailedError, match=r"(?s)Rank 1 of 2.*KeyError: 'the reason'"):
        run_processes(raise_on_last, 2)


def test_hanging_processes_are_killed():
    start = time.monotonic()
    with pytest.raises(ProcessFailedError, match="did not end in time"):
        run_processes(hang, 2, timeout=1)
    assert time.monotonic() - start < 20


def test_process_that_dies_without_a_word():
    with pytest.raises(ProcessFailedError, match=r"Exit codes .*3.*no traceback"):
        run_processes(die, 2)
