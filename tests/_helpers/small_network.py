"""A small classifier with batch norm and dropout, and the data to score it on."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import score

C, Z = 4, 7


def make_network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, Z))


def make_rows() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(90, 5, generator=generator), torch.randint(C, (90,), generator=generator))


def run(source, data, **kwargs):
    return score(source, DataLoader(data, batch_size=32), C, progress=False, **kwargs)
