"""How a scoring pass runs a source over data: modes, random states, precision, loaders, impossible arguments."""

import random
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_leep import LEEPMetric, TransferabilityReport, score
from lightning_leep.records.report_notes import LOGITS
from tests._helpers.small_network import C, run


@pytest.mark.parametrize(
    ("hide", "layer"),
    [
        (lambda net: net, "4"),
        (lambda net: lambda inputs: net(inputs), LOGITS),
        (lambda net: partial(lambda inputs, nets: nets[0](inputs), nets=[net]), LOGITS),
        (lambda net: net.forward, "4"),
    ],
    ids=["module", "function", "holder", "bound method"],
)
def test_source_runs_in_evaluation_mode_without_gradients_and_gets_its_modes_back(source, data, hide, layer):
    source.train()
    source[1].eval()  # a user's frozen BatchNorm
    statistics, seen = source[1].running_mean.clone(), []
    for part in source:
        part.register_forward_hook(lambda part, inputs, output: seen.append((part.training, output.requires_grad)))
    assert run(hide(source), data).feature_layer == layer
    assert set(seen) == {(False, False)}
    assert [module.training for module in source.modules()] == [True, True, False, True, True, True]
    assert torch.equal(source[1].running_mean, statistics)
    assert all(p.grad is None and p.requires_grad for p in source.parameters())


@pytest.mark.parametrize("error", [None, IndexError, KeyboardInterrupt])
def test_modes_and_random_states_are_restored(source, data, error):
    def split(batch):
        torch.rand(1), np.random.rand(), random.random()
        if error is not None:
            raise error
        return batch

    source.train()
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(error) if error else nullcontext():
        run(source, data, split_batch=split)
    assert all(module.training for module in source.modules())
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


@pytest.mark.parametrize(("precision", "dtype"), [("16-mixed", torch.float16), ("bf16-mixed", torch.bfloat16)])
def test_precision(source, data, precision, dtype):
    dtypes = []
    source[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    half = run(source, data, precision=precision, layers=None)
    assert set(dtypes) == {dtype}
    assert not torch.is_autocast_enabled("cpu")
    assert half.leep == pytest.approx(run(source, data, layers=None).leep, abs=1e-2)


def test_loader_is_read_once_and_the_progress_shown(source, data, capsys, monkeypatch):
    """Each iterator of a loader starts workers of its own. One that Lightning started as another process is silent."""

    class Counting(DataLoader):
        readings = 0

        def __iter__(self):
            self.readings += 1
            return super().__iter__()

    for progress, rank in ((False, 0), (True, 0), (True, 1)):
        monkeypatch.setattr(rank_zero_only, "rank", rank, raising=False)
        loader = Counting(data, batch_size=32)
        score(source, loader, C, progress=progress)
        assert loader.readings == 1
        assert ("Scoring the source model" in capsys.readouterr().err) == (progress and rank == 0)


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
    report = score(nn.Linear(3, 5), [(images, labels)], np.int64(2), ignore_index=np.int64(-1), progress=False)
    assert report.num_target_classes == 2
    assert TransferabilityReport.from_json(report.to_json()) == report
    metric = LEEPMetric(np.int64(2), np.int32(5))
    assert (type(metric.num_target_classes), type(metric.num_source_classes)) == (int, int)
