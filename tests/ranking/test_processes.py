"""A ranking on real processes equals that of one; a fault on one of them is a fault of that source for all."""

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from lightning_leep import Source, rank_sources
from tests._helpers.distributed import run_processes
from tests._helpers.small_zoo import D, Sees, make_rows

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


class FailsOnTheLast(Sees):
    def forward(self, x):
        if dist.is_initialized() and dist.get_rank() == dist.get_world_size() - 1:
            raise ValueError("no power")
        return super().forward(x)


class HungryOnTheFirst(Sees):
    def forward(self, x):
        if len(x) > 4 and (not dist.is_initialized() or dist.get_rank() == 0):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(x)


def broken():
    if dist.is_initialized() and dist.get_rank() == 1:
        raise OSError("no disk")
    return Sees(0, 1)


def sources():
    return {
        "good": Source(lambda: Sees(0, 1, 2)),
        "half": Sees(0, 6, 7),
        "hungry": HungryOnTheFirst(0, 1),
        "shape": torch.nn.Linear(D + 1, 3),
        "turned": Source(Sees(0, 1, 3), transform=torch.neg),
    }


def values(ranking):
    return [(s.name, s.rank, s.tied_with_best, dict(s.scores), dict(s.forecasts), s.error) for s in ranking.sources]


def rankings(rank, world_size, folder):
    rows = make_rows(151)
    found = []
    for data in (rows, DataLoader(rows, 10, shuffle=True)):
        taken = {name: s for name, s in sources().items() if data is rows or name != "turned"}
        found.append(values(rank_sources(taken, data, progress=False, max_samples=101, folder=folder)))
    faults = {"good": Sees(0, 1, 2), "forward": FailsOnTheLast(0, 1), "factory": Source(broken)}
    found.append(values(rank_sources(faults, rows, progress=False, time_budget=500)))
    return found


def test_processes_equal_one(tmp_path):
    by_rank = run_processes(rankings, 2, str(tmp_path))
    assert all(found == by_rank[0] for found in by_rank)
    for pooled, alone in zip(by_rank[0][:2], rankings(0, 1, None)[:2], strict=True):
        assert [entry[:3] for entry in pooled] == [entry[:3] for entry in alone]
        assert [entry[0] for entry in pooled if entry[5]] == ["shape"]
        for one, other in zip(pooled, alone, strict=True):
            assert one[3] == pytest.approx(other[3], abs=1e-6)
    faults = {name: error for name, *_, error in by_rank[0][2]}
    assert faults == {"good": None, "forward": "ValueError: no power", "factory": "OSError: no disk"}
