"""A small source, its data and the comparison of reports, for tests of the scoring pass."""

import dataclasses
import gc

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import score

C, Z, D, N, BATCH = 4, 9, 6, 110, 25
FEW_PERMUTATIONS = {"num_permutations": 19}
#: What depends on time, on how rows are kept by name, or needs kept rows.
NOT_COMPARED = {"seconds", "samples_per_second", "memory", "notes", "joint", "layers"}
OF_SHUFFLES = {"permutation_mean", "permutation_standard_deviation", "permutation_p_value"}


class Source(nn.Module):
    """Counts how often it runs."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.backbone, self.fc = nn.Linear(5, D, dtype=dtype), nn.Linear(D, Z, dtype=dtype)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator).to(dtype)
        self.calls = 0
        self.dtype = dtype

    def forward(self, x):
        self.calls += 1
        return self.fc(self.backbone(x.to(self.dtype)).tanh())


def dataset(n=N):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(C, (n,), generator=generator)
    images = torch.randn(n, 5, generator=generator)
    images[torch.arange(n), labels] += 1.5
    return TensorDataset(images, labels)


class CountedLoader:
    """Batches that can be read any number of times; counts the readings."""

    def __init__(self, data=None, has_length=True) -> None:
        self.loader, self.has_length, self.readings = DataLoader(data or dataset(), batch_size=BATCH), has_length, 0

    def __iter__(self):
        self.readings += 1
        return iter(self.loader)

    def __len__(self) -> int:
        if not self.has_length:
            raise TypeError("no length")
        return len(self.loader)


class Measuring(Source):
    """Measures at some of its calls how many bytes all tensors of this process hold."""

    def __init__(self, *calls: int) -> None:
        super().__init__()
        self.at, self.held = calls, []

    def forward(self, x):
        if self.calls in self.at:
            tensors = [value for value in gc.get_objects() if type(value) is torch.Tensor]
            storages = [tensor.untyped_storage() for tensor in tensors]
            self.held.append(sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()))
        return super().forward(x)


def run(memory="device", source=None, loader=None, **kwargs):
    loader = CountedLoader() if loader is None else loader
    return score(source or Source(), loader, C, memory=memory, progress=False, **{**FEW_PERMUTATIONS, **kwargs})


def fields_of(report, without):
    names = {f.name for f in dataclasses.fields(report)} - NOT_COMPARED - without
    return {name: getattr(report, name) for name in names} | layer_values(report)


def layer_values(report):
    """Every field of every layer by a name of its own, to be compared as a number where it is one."""
    return {
        f"{layer.name} {name}": value for layer in report.layers for name, value in dataclasses.asdict(layer).items()
    }


def same(report, reference, without=frozenset()):
    close = {
        name: pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True) if isinstance(value, float) else value
        for name, value in fields_of(reference, without).items()
    }
    assert fields_of(report, without) == close
    torch.testing.assert_close(report.joint, reference.joint, rtol=1e-12, atol=1e-12)
