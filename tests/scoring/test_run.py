import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_leep import LEEPMetric, TransferabilityReport, score
from lightning_leep.functional import leep
from tests._helpers.small_network import C, Z, run


def test_report_equals_the_scores_of_all_rows_at_once(source, data):
    report = run(source, data)
    images, labels = data.tensors
    with torch.no_grad():
        logits = source.eval()(images)
    theta = torch.softmax(logits, 1).double().numpy()  # float32 rows, float64 arithmetic
    joint = np.stack([theta[labels == y].sum(0) for y in range(C)])
    eep = theta @ (joint / joint.sum(0)).T
    n = len(labels)
    assert report.leep == pytest.approx(np.log(eep[np.arange(n), labels]).mean(), abs=1e-6)
    assert report.leep == pytest.approx(leep(logits, labels, C).item(), abs=1e-6)
    assert report.eep_accuracy == pytest.approx((eep.argmax(1) == labels.numpy()).mean())
    counts = np.bincount(labels, minlength=C)
    assert report.class_counts == tuple(counts)
    assert report.label_entropy == pytest.approx(-(counts / n * np.log(counts / n)).sum())
    assert (report.num_samples, report.num_target_classes, report.num_source_classes) == (n, C, Z)
    assert report.samples_per_second == pytest.approx(n / report.seconds)
    np.testing.assert_allclose(report.joint, joint, rtol=1e-5)


@pytest.mark.parametrize("hide", [lambda net: net, lambda net: lambda inputs: net(inputs)], ids=["module", "function"])
def test_source_runs_in_evaluation_mode_and_gets_its_modes_back(source, data, hide):
    source.train()
    source[1].eval()  # a user's frozen BatchNorm
    statistics, modes = source[1].running_mean.clone(), []
    source.register_forward_hook(lambda *args: modes.extend(layer.training for layer in source.modules()))
    run(hide(source), data)
    assert set(modes) == {False}
    assert [module.training for module in source.modules()] == [True, True, False, True, True, True]
    assert torch.equal(source[1].running_mean, statistics)


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_random_states_are_restored(source, data, fails):
    def split(batch):
        torch.rand(1), np.random.rand(), random.random()
        return batch[7] if fails else batch

    source.train()
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(IndexError) if fails else nullcontext():
        run(source, data, split_batch=split)
    assert all(module.training for module in source.modules())
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


def test_no_gradients_and_none_left_behind(source, data):
    recorded = []
    source.register_forward_hook(lambda module, inputs, output: recorded.append(output.requires_grad))
    run(source, data)
    assert recorded == [False] * 3
    assert all(p.grad is None for p in source.parameters())
    assert all(p.requires_grad for p in source.parameters())


def test_batches_that_are_longer_tuples(source, data):
    rows = [(x, "name", y) for x, y in data]
    assert run(source, rows, split_batch=lambda batch: (batch[0], batch[2])).leep == run(source, data).leep


def test_probabilities_and_ignored_rows(source, data):
    images, labels = data.tensors
    labels = labels.clone()
    labels[::5] = -100
    kept = labels != -100
    whole = run(lambda x: source(x).softmax(1), TensorDataset(images, labels), from_logits=False, ignore_index=-100)
    part = run(source, TensorDataset(images[kept], labels[kept]))
    assert whole.leep == pytest.approx(part.leep, abs=1e-7)
    assert whole.num_samples == part.num_samples == int(kept.sum())


def test_precision(source, data):
    dtypes = []
    source[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    half = run(source, data, precision="bf16-mixed")
    assert set(dtypes) == {torch.bfloat16}
    assert half.leep == pytest.approx(run(source, data).leep, abs=1e-2)


def test_workers_of_the_loader_start_once(source, data):
    """Each iterator of a loader starts workers of its own."""

    class Counting(DataLoader):
        readings = 0

        def __iter__(self):
            self.readings += 1
            return super().__iter__()

    for progress in (False, True):
        loader = Counting(data, batch_size=32)
        score(source, loader, C, progress=progress)
        assert loader.readings == 1


def test_batches_by_index(source, data):
    """As from a ``Subset`` of a list of batches, which has no ``__iter__``."""
    batches = list(DataLoader(data, batch_size=32))
    assert score(source, Subset(batches, range(3)), C, progress=False).leep == run(source, data).leep


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": 3}, TypeError, "`source` must be a module or a function, got int"),
        ({"dataloader": 3}, TypeError, "`dataloader` must be iterable, got int"),
        (
            {"dataloader": TensorDataset(torch.zeros(9, 5), torch.arange(9))},
            TypeError,
            r"Wrap a data set: `DataLoader\(",
        ),
        ({"dataloader": [(torch.zeros(5), 1)]}, TypeError, "single rows from a list"),
        ({"num_target_classes": 0}, ValueError, "`num_target_classes` must be an integer of at least 1, got 0"),
        ({"options": {"memory": "cpu"}}, TypeError, "`options` must be ScoringOptions or None, got dict"),
        ({"precision": "double"}, ValueError, "`precision` must be one of 32-true, .* or a function, got 'double'"),
        ({"to_device": "cpu"}, TypeError, "`to_device` must be a function or None, got str"),
        ({"progress": None}, ValueError, "`progress` must be True or False, got None"),
        ({"memory": "disk"}, ValueError, "`memory` must be one of device, cpu, second_pass, got 'disk'"),
    ],
)
def test_impossible_arguments_before_anything_runs(arguments, error, message):
    def source(inputs):
        raise AssertionError("the source runs")

    defaults = {"source": source, "dataloader": [(torch.zeros(2, 5), torch.arange(2))], "num_target_classes": C}
    with pytest.raises(error, match=message):
        score(**defaults | arguments)


@pytest.mark.parametrize(
    ("rows", "said"),
    [([], "at least one batch, got none"), ([(torch.zeros(5), 1)], "at least 2 labelled rows, got 1")],
)
def test_too_little_data(source, rows, said):
    with pytest.raises(ValueError, match=said):
        score(source, DataLoader(rows, batch_size=4) if rows else [], C, progress=False)


def test_numbers_of_numpy_are_numbers():
    """The number of classes is often the largest label of an array, plus one."""
    images, labels = torch.randn(40, 3), torch.arange(40) % 2
    report = score(torch.nn.Linear(3, 5), [(images, labels)], np.int64(2), ignore_index=np.int64(-1), progress=False)
    assert report.num_target_classes == 2
    assert TransferabilityReport.from_json(report.to_json()) == report
    metric = LEEPMetric(np.int64(2), np.int32(5))
    assert (type(metric.num_target_classes), type(metric.num_source_classes)) == (int, int)
