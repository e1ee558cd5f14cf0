"""Rows are kept if they fit into the bytes that the user grants."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests._helpers.scoring_pass import (
    BATCH,
    OF_SHUFFLES,
    C,
    CountedLoader,
    D,
    N,
    Source,
    Z,
    collected,
    rows_of,
    run,
    same,
)


@pytest.fixture
def collectors():
    with collected() as kept:
        yield kept


class TestBudget:
    #: Probabilities and features in float32, and a label of 8 bytes with each.
    NEEDED = 5 * BATCH * (4 * Z + 4 * D + 16)  # as if the last batch were full

    def test_enough(self, collectors):
        report = run(self.NEEDED)
        assert report.memory == f"rows kept where they were computed ({self.NEEDED} of {self.NEEDED} bytes)"
        held = sum(t.nbytes for t in rows_of(collectors[0]))
        assert held == N * (4 * Z + 4 * D + 16) <= self.NEEDED
        same(report, run())

    def test_a_byte_too_few(self, collectors):
        report = run(self.NEEDED - 1)
        assert rows_of(collectors[0]) == []
        assert f"{self.NEEDED} bytes do not fit into {self.NEEDED - 1}" in report.memory
        same(report, run(), OF_SHUFFLES)

    @pytest.mark.parametrize(("dtype", "row", "feature"), [(torch.float64, 8, 8), (torch.bfloat16, 4, 2)])
    def test_other_precisions(self, collectors, dtype, row, feature):
        needed = 5 * BATCH * (row * Z + feature * D + 16)
        assert f"({needed} of" in run(needed, Source(dtype)).memory
        assert sum(t.nbytes for t in rows_of(collectors[0])) == N * (row * Z + feature * D + 16)
        assert "do not fit" in run(needed - 1, Source(dtype)).memory

    def test_nleep_needs_nothing_more(self, collectors):
        assert f"({self.NEEDED} of" in run(self.NEEDED, nleep=True).memory
        metrics = collectors[0].metrics
        held = {id(t): t.nbytes for metric in metrics for name in ("rows", "labels") for t in getattr(metric, name, [])}
        assert sum(held.values()) == N * (4 * Z + 4 * D + 16)

    def test_logits_as_features(self, collectors):
        source = Source()
        needed = 5 * BATCH * (2 * 4 * Z + 16)
        assert f"({needed} of" in run(needed, lambda x: source(x).detach()).memory
        assert sum(t.nbytes for t in rows_of(collectors[0])) == N * (2 * 4 * Z + 16)
        assert "do not fit" in run(needed - 1, lambda x: source(x).detach()).memory

    def test_dense_labels_count_each(self):
        images, labels = torch.randn(6, 3, 4), torch.randint(C, (6, 4))
        loader = DataLoader(TensorDataset(images, labels), batch_size=3)
        needed = 2 * 3 * 4 * (2 * 4 * Z + 16)
        for budget, said in ((needed, "rows kept"), (needed - 1, "no rows kept")):
            assert said in run(budget, nn.Conv1d(3, Z, 1), loader).memory

    def test_unknown_length(self):
        loader = CountedLoader(has_length=False)
        report = run(10**9, loader=loader)
        assert "an unknown number of bytes" in report.memory
        assert loader.readings == 2
        same(report, run(), OF_SHUFFLES)
