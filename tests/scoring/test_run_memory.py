"""Ways to keep rows in a scoring pass: what is held, what is said of it, and that exact ways are exact."""

import gc

import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler

from lightning_leep.records.row_outcomes import labels_checksum
from tests._helpers.scoring_pass import (
    BATCH,
    OF_SHUFFLES,
    CountedLoader,
    D,
    Measuring,
    N,
    Source,
    Z,
    dataset,
    run,
    same,
)

#: Probabilities and features of a row in float32, and their two labels; label and key of the nearest neighbours.
ROW_BYTES = 4 * Z + 4 * D + 16 + 16


def growth(memory, first, **kwargs):
    """Bytes by which what is held grows in the six batches after the ``first`` one of twelve."""
    gc.collect()  # what earlier tests left in cycles must not go in between
    source = Measuring(first, first + 6)
    run(memory, source, CountedLoader(dataset(12 * BATCH)), **kwargs)
    return source.held[1] - source.held[0]


@pytest.mark.slow
def test_what_is_held(monkeypatch):
    """Beside the outcomes of single rows, which are kept of 10,000 rows at most."""
    for place in ("metrics.linear_probe", "scoring.row_places"):
        monkeypatch.setattr(f"lightning_leep.{place}.MAX_ROW_OUTCOMES", 0)
    assert growth("device", first=4, layers=None) == 6 * BATCH * ROW_BYTES
    assert growth("device", first=4, layers=None, nleep=True) == 6 * BATCH * ROW_BYTES  # it shares the features
    width = sum(layer.kept_width for layer in run().layers)
    assert growth("device", first=4) == 6 * BATCH * (ROW_BYTES + 4 * width + 8)
    # The nearest neighbours are found in a sample of at most 1,500 rows, with label and key.
    assert growth("second_pass", first=4) == 6 * BATCH * (4 * D + 16)
    assert growth("second_pass", first=12 + 4) == 0


@pytest.mark.parametrize(
    ("memory", "readings", "said"),
    [
        ("device", 1, "rows kept where they were computed"),
        ("cpu", 1, "rows kept on the CPU"),
        ("second_pass", 2, "no rows kept; the loader was read twice"),
    ],
)
def test_ways_to_keep_rows(memory, readings, said):
    """Every way gives the same scores; the permutation test needs kept rows."""
    loader, source = CountedLoader(), Source()
    report = run(memory, source, loader)
    assert (loader.readings, source.calls) == (readings, 5 * readings)
    assert report.memory == said
    same(report, run(), OF_SHUFFLES)
    p_value = None if memory == "second_pass" else pytest.approx(1 / 20)
    assert report.permutation_p_value == p_value
    assert (report.permutation_mean is None) == (memory == "second_pass")


def test_second_pass_in_another_order():
    """As of a loader that shuffles: the same rows, and single rows are in the order of the second pass."""

    class Turns(CountedLoader):
        def __iter__(self):
            self.readings += 1
            return iter(DataLoader(Subset(dataset(), range(N)[:: 1 if self.readings == 1 else -1]), batch_size=BATCH))

    source = Source(torch.float64)  # float32 products depend on the rows that they are batched with
    turned, report = run("second_pass", source, Turns()), run(source=source)
    same(turned, report, OF_SHUFFLES | {"linear_probe_rows", "multi_layer_probe_rows"})
    assert turned.linear_probe_rows.correct == report.linear_probe_rows.correct[::-1]
    assert turned.linear_probe_rows.labels == labels_checksum(dataset().tensors[1].tolist()[::-1])


def test_iterator_can_be_read_once():
    """Where rows are kept that is enough, else it is an error before anything runs."""
    same(run(loader=iter(CountedLoader())), run())
    source = Source()
    with pytest.raises(ValueError, match="`dataloader` must be readable twice for a second pass, got an iterator"):
        run("second_pass", source, (batch for batch in CountedLoader()))
    assert source.calls == 0


@pytest.mark.parametrize(("first", "second"), [(N, N + 10), (N, 0)])
def test_other_rows_in_the_second_pass(first, second):
    class Changes(CountedLoader):
        def __iter__(self):
            self.readings += 1
            rows = first if self.readings == 1 else second
            return iter(DataLoader(dataset(rows), batch_size=BATCH)) if rows else iter([])

    with pytest.raises(ValueError, match=f"the same rows twice .* got {first} labelled rows and then {second}"):
        run("second_pass", loader=Changes())


class Augmented(TensorDataset):
    """Images that are another each time."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + 0.3 * torch.randn_like(image), label


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Augmented(*dataset().tensors), batch_size=BATCH),
        DataLoader(dataset(), batch_size=BATCH, sampler=WeightedRandomSampler(torch.ones(N), N)),
    ],
    ids=["augmentation", "weights"],
)
def test_as_many_but_other_rows_in_the_second_pass(loader):
    with pytest.raises(ValueError, match="The second pass must have the rows of the first, got"):
        run("second_pass", loader=loader)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, found none")
def test_rows_of_a_cuda_source():
    class OnCUDA(Source):
        def forward(self, x):
            torch.cuda.synchronize()
            self.held = torch.cuda.memory_allocated()
            return super().forward(x)

    data = dataset(4000 * BATCH)
    kept, moved, second = ({}, {}, {})
    for memory, found in (("device", kept), ("cpu", moved), ("second_pass", second)):
        source = OnCUDA().cuda()
        found["before"] = torch.cuda.memory_allocated()
        found["report"] = run(memory, source, CountedLoader(data), num_permutations=0)
        found["growth"] = source.held - found["before"]
    assert kept["growth"] > len(data) * ROW_BYTES
    for found in (moved, second):
        assert found["growth"] < 0.2 * len(data) * ROW_BYTES
        same(found["report"], kept["report"], OF_SHUFFLES)
