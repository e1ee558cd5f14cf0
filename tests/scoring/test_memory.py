"""Which way of keeping rows is chosen, and what is said of it."""

import pytest
import torch

from lightning_leep.scoring.memory import WAYS, RowMemory, check_memory, check_readable_twice, choose_memory

KEPT = RowMemory()


@pytest.mark.parametrize(
    ("memory", "keep_rows", "on_cpu", "dtype", "top_k"),
    [
        ("device", True, False, None, None),
        ("cpu", True, True, None, None),
        ("bfloat16", True, False, torch.bfloat16, None),
        ("second_pass", False, False, None, None),
        ("top_k", True, False, None, 7),
    ],
)
def test_ways_by_name(memory, keep_rows, on_cpu, dtype, top_k):
    for needed in (None, 1, 10**12):  # a way that the user named holds whatever it takes
        chosen = choose_memory(memory, 7, needed)
        assert (chosen.keep_rows, chosen.on_cpu, chosen.dtype, chosen.top_k) == (keep_rows, on_cpu, dtype, top_k)


def test_every_way_says_something_of_its_own():
    descriptions = [choose_memory(way, 7, None).description for way in WAYS]
    assert len(set(descriptions)) == len(WAYS)
    assert "CPU" in descriptions[WAYS.index("cpu")]
    assert "bfloat16" in descriptions[WAYS.index("bfloat16")]
    assert "read twice" in descriptions[WAYS.index("second_pass")]
    assert "7 largest" in descriptions[WAYS.index("top_k")]


@pytest.mark.parametrize(
    ("needed", "keep_rows", "said"),
    [
        (999, True, "(999 of 1000 bytes)"),
        (1000, True, "(1000 of 1000 bytes)"),
        (1001, False, "1001 bytes do not fit into 1000"),
        (None, False, "an unknown number of bytes do not fit into 1000"),
    ],
)
def test_budget(needed, keep_rows, said):
    chosen = choose_memory(1000, 7, needed)
    assert chosen.keep_rows == keep_rows
    assert said in chosen.description
    assert chosen == RowMemory(keep_rows=keep_rows, description=chosen.description)


@pytest.mark.parametrize("memory", ["gpu", "", 0, -1, True, False, 1.5, None, torch.bfloat16, ("cpu",)])
def test_bad_memory(memory):
    with pytest.raises(ValueError, match="`memory` must be one of device, cpu, bfloat16, second_pass, top_k or a pos"):
        check_memory(memory, 64)


@pytest.mark.parametrize("top_k", [0, -3, 2.0, True, None, "4"])
def test_bad_top_k(top_k):
    for memory in ("device", "top_k"):
        with pytest.raises(ValueError, match="`top_k` must be a positive integer, got"):
            check_memory(memory, top_k)


@pytest.mark.parametrize("memory", ["second_pass", "bfloat16"])
def test_nleep_needs_features_as_they_are(memory):
    check_memory(memory, 64)
    with pytest.raises(ValueError, match=f"`nleep=True` needs the features .* got `memory='{memory}'`"):
        check_memory(memory, 64, nleep=True)


def test_nleep_within_a_budget():
    assert choose_memory(1000, 64, 1000, nleep=True).keep_rows
    for needed in (1001, None):
        with pytest.raises(ValueError, match="`nleep=True` .* bytes do not fit into `memory=1000`"):
            choose_memory(1000, 64, needed, nleep=True)


@pytest.mark.parametrize("memory", ["device", "cpu", "top_k", 1000])
def test_what_goes_with_nleep(memory):
    check_memory(memory, 64, nleep=True)


def test_iterators_are_gone_after_the_first_pass():
    once = (batch for batch in [])
    check_readable_twice(once, KEPT)
    check_readable_twice([], RowMemory(keep_rows=False))
    for iterator in (once, iter([])):
        with pytest.raises(ValueError, match=r"`dataloader` must be readable twice .* got an iterator \("):
            check_readable_twice(iterator, RowMemory(keep_rows=False))
