"""Ways to keep rows in a scoring pass: what is held, what is said of it, and that exact ways are exact."""

import math

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset, WeightedRandomSampler

from lightning_leep.functional import h_score, leep, linear_probe, log_me
from tests._helpers.scoring_pass import (
    BATCH,
    OF_KEPT_OUTPUTS,
    OF_SHUFFLES,
    C,
    CountedLoader,
    N,
    Source,
    Z,
    collected,
    dataset,
    rows_of,
    run,
    same,
)


@pytest.fixture
def collectors():
    with collected() as kept:
        yield kept


def test_rows_on_the_device(collectors):
    report = run()
    assert report.memory == "rows kept where they were computed"
    assert sum(len(rows) for rows in collectors[0].outputs.rows) == N
    assert report.permutation_p_value == pytest.approx(1 / 20)


def test_rows_on_the_cpu(collectors):
    report, source = run("cpu"), Source()
    assert "CPU" in report.memory
    assert all(metric.compute_on_cpu for metric in (collectors[0].outputs, collectors[0].features))
    same(report, run(source=source))
    assert source.calls == 5


def test_second_pass(collectors):
    """Nothing of the size of the data is held, and the loader is read twice."""
    loader, source = CountedLoader(), Source()
    report = run("second_pass", source, loader)
    assert (loader.readings, source.calls) == (2, 10)
    assert rows_of(collectors[0]) == []
    assert "no rows kept" in report.memory
    run("second_pass", loader=CountedLoader(dataset(10 * N)))
    states = [[state for m in collector.metrics for state in m.metric_state.values()] for collector in collectors]
    sizes = [[state.numel() if torch.is_tensor(state) else len(state) for state in held] for held in states]
    assert sizes[0] == sizes[1]
    same(report, run(), OF_SHUFFLES)
    assert (report.permutation_mean, report.permutation_p_value) == (None, None)


def test_second_pass_of_a_loader_that_shuffles():
    """Another order in the second pass is the same rows."""
    loader = DataLoader(dataset(), batch_size=BATCH, shuffle=True)
    source = Source(torch.float64)  # float32 products depend on the rows that they are batched with
    same(run("second_pass", source, loader), run(source=source), OF_SHUFFLES)


def test_bfloat16(collectors):
    """Every score of kept rows is exactly that of the rows rounded once."""
    report, exact, source = run("bfloat16"), run(), Source()
    images, labels = dataset().tensors
    with torch.no_grad():
        parts = [(source.backbone(batch).tanh(), source(batch)) for batch in images.split(BATCH)]
    features, theta = (torch.cat(rows) for rows in zip(*parts, strict=True))
    features, theta = features.bfloat16().double(), theta.softmax(dim=1).bfloat16().double()
    for metric in (collectors[0].outputs, collectors[0].features):
        assert {rows.dtype for rows in metric.rows} == {torch.bfloat16}
    assert "bfloat16" in report.memory
    probe, joint = linear_probe(features, labels, C), torch.stack([theta[labels == k].sum(dim=0) for k in range(C)])
    likelihood = ((joint / joint.sum(dim=0))[labels] * theta).sum(dim=1)
    expected = {
        "leep": likelihood.log().mean(),
        "linear_probe_accuracy": probe.accuracy,
        "linear_probe_log_likelihood": probe.log_likelihood,
        "h_score": h_score(features, labels, C),
        "h_score_unshrunk": h_score(features, labels, C, shrinkage=False),
        "log_me": log_me(features, labels, C),
    }
    for name, value in expected.items():
        assert getattr(report, name) == pytest.approx(value.item(), rel=1e-7), name
        assert getattr(report, name) == pytest.approx(getattr(exact, name), abs=0.02), name
    assert (report.nce, report.class_counts) == (exact.nce, exact.class_counts)  # never rounded


@pytest.mark.parametrize("k", [1, 3, Z, 50])
def test_top_k(collectors, k):
    report, exact = run("top_k", top_k=k), run()
    assert {rows.shape[1] for rows in collectors[0].outputs.rows} == {min(k, Z)}
    assert f"{k} largest" in report.memory
    assert report.leep_low - 1e-12 <= exact.leep <= report.leep_high + 1e-12
    assert report.leep_low <= report.leep <= report.leep_high
    if k >= Z:
        assert report.leep_high - report.leep_low < 1e-9
        assert report.leep == pytest.approx(exact.leep, abs=1e-9)
    else:
        assert report.leep_high - report.leep_low > 1e-3
    unknown = OF_KEPT_OUTPUTS - {"leep", "leep_low", "leep_high"}
    assert all(math.isnan(getattr(report, name)) for name in unknown)
    same(report, exact, OF_KEPT_OUTPUTS | OF_SHUFFLES)
    assert (report.permutation_mean, report.permutation_p_value) == (None, None)


class Stream(IterableDataset):
    def __iter__(self):
        return zip(*dataset().tensors, strict=True)


def test_loader_of_a_stream_can_be_read_twice():
    same(run("second_pass", loader=DataLoader(Stream(), batch_size=BATCH)), run(), OF_SHUFFLES)


@pytest.mark.parametrize("memory", ["second_pass", 100])
@pytest.mark.parametrize("make", [iter, lambda loader: (batch for batch in loader)])
def test_iterator_cannot_be_read_twice(memory, make):
    """One error, at the first batch and not after the last."""
    source = Source()
    with pytest.raises(ValueError, match="`dataloader` must be readable twice for a second pass, got an iterator"):
        run(memory, source, make(CountedLoader()))
    assert source.calls == 1


@pytest.mark.parametrize("memory", ["device", "cpu", "bfloat16", "top_k"])
def test_iterator_of_which_the_rows_are_kept(memory):
    same(run(memory, loader=iter(CountedLoader())), run(memory))


@pytest.mark.parametrize(("first", "second"), [(N, N - 10), (N, N + 10), (N, 0)])
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
        DataLoader(dataset(), batch_size=BATCH, sampler=RandomSampler(dataset(), replacement=True)),
        DataLoader(dataset(), batch_size=BATCH, sampler=WeightedRandomSampler(torch.ones(N), N)),
    ],
    ids=["augmentation", "replacement", "weights"],
)
def test_as_many_but_other_rows_in_the_second_pass(loader):
    run(loader=loader)
    with pytest.raises(ValueError, match="The second pass must have the rows of the first, got"):
        run("second_pass", loader=loader)


def test_second_pass_that_fails():
    class Fails(CountedLoader):
        def __iter__(self):
            self.readings += 1
            for i, batch in enumerate(self.loader):
                if self.readings == 2 and i == 2:
                    raise OSError("disk gone")
                yield batch

    source = Source().train()
    with pytest.raises(OSError, match="disk gone"):
        run("second_pass", source, Fails())
    assert source.training
    assert not source.fc._forward_pre_hooks


@pytest.mark.parametrize("memory", ["device", "second_pass"])
def test_nothing_but_single_images(memory):
    """Leave-one-out scores know nothing then; the others are what they are."""
    data = TensorDataset(torch.randn(C, 5), torch.arange(C))
    report = run(memory, loader=DataLoader(data, batch_size=2))
    assert math.isnan(report.leave_one_out_leep)
    assert (report.linear_probe_accuracy, report.linear_probe_samples) == (None, 0)
    assert report.leep == pytest.approx(leep(Source()(data.tensors[0]), data.tensors[1], C).item(), abs=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"memory": "disk"}, "`memory` must be one of"),
        ({"memory": 0}, "`memory` must be one of"),
        ({"top_k": 0}, "`top_k` must be a positive integer"),
        ({"num_permutations": -1}, "`num_permutations` must be an integer of at least 0"),
        ({"num_permutations": 5}, "`num_permutations` must be 0 or at least 19"),
        ({"nleep": 1}, "`nleep` must be True or False"),
        ({"nleep": True, "memory": "second_pass"}, "`nleep=True` needs the features"),
        ({"from_logits": None}, "`from_logits` must be True or False"),
    ],
)
def test_bad_values_before_anything_runs(kwargs, message):
    source, loader = Source(), CountedLoader()
    with pytest.raises(ValueError, match=message):
        run(source=source, loader=loader, **kwargs)
    assert (source.calls, loader.readings) == (0, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, found none")
def test_rows_of_a_cuda_source(collectors):
    reports = {memory: run(memory, Source().cuda()) for memory in ("device", "cpu", "second_pass")}
    kept, moved, _ = collectors
    assert {t.device.type for t in rows_of(kept)} == {"cuda"}
    assert {t.device.type for t in rows_of(moved)} == {"cpu"}
    same(reports["cpu"], reports["device"])
    same(reports["second_pass"], reports["device"], OF_SHUFFLES)
