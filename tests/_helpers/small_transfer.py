"""A small transfer problem, and Trainers that run it quietly."""

import copy
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import lightning.pytorch
import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_leep import ScoringOptions

C, Z, D = 3, 5, 6


def make_data(n: int = 50, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(C, D, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(C, (n,), generator=generator)
    return TensorDataset(centres[labels] + 0.7 * torch.randn(n, D, generator=generator), labels)


#: Features take two thirds of the time of a small score: for tests of what else a fit does.
FEW_SCORES = ScoringOptions(feature_scores=False, num_permutations=0)


#: The training data of every test.
DATA = make_data()


def make_source(seed: int = 1) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, Z))


class Transfer:
    """Fine-tunes the layers of a source, below a new head. Records every loss and every batch of training rows."""

    def __init__(self, source: nn.Sequential | None = None, seed: int = 2) -> None:
        super().__init__()
        self.source = [source or make_source()]  # hidden in a list: the head must not become a parameter
        self.body = self.source[0][:-1]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.head = nn.Linear(8, C)
        self.num_classes = C
        self.accuracy = MulticlassAccuracy(C, average="micro")
        self.losses: list[float] = []
        self.batches: list[list[float]] = []

    def source_logits(self, inputs: Tensor) -> Tensor:
        return self.source[0](inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self(inputs), labels)
        self.losses.append(float(loss.detach()))
        self.batches.append(inputs[:, 0].tolist())
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, labels = batch
        self.accuracy(self(inputs), labels)
        self.log("val_acc", self.accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Classifier(Transfer, pl.LightningModule):
    """The module of one import style."""


class LightningClassifier(Transfer, lightning.pytorch.LightningModule):
    """The module of the other."""


class Scripted(Classifier):
    """Shows one given accuracy after the other, the last one again and again."""

    def __init__(self, *levels: float) -> None:
        super().__init__()
        self.levels = levels

    @property
    def level(self) -> Tensor:
        return torch.tensor(self.levels[min(self.current_epoch, len(self.levels) - 1)])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_acc", self.level)


class TrainingOnly(Classifier):
    """The same without a validation loop."""

    validation_step = pl.LightningModule.validation_step


def train_loader(data: Dataset | None = None, **kwargs: Any) -> DataLoader:
    return DataLoader(DATA if data is None else data, **{"batch_size": 10, "shuffle": True, **kwargs})


def val_loader() -> DataLoader:
    return DataLoader(make_data(40, seed=5), batch_size=20)


class Stream(IterableDataset):
    """The training data without an index, several times one after the other."""

    def __init__(self, repeats: int = 1) -> None:
        self.repeats = repeats

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.repeats):
            yield from zip(*DATA.tensors, strict=True)


class Data(pl.LightningDataModule):
    num_classes = C

    def train_dataloader(self) -> DataLoader:
        return train_loader()

    def val_dataloader(self) -> DataLoader:
        return val_loader()


def make_trainer(*callbacks: Any, **kwargs: Any) -> pl.Trainer:
    """A quiet Trainer whose root directory is its own, so that no test learns from the history of another."""
    root = tempfile.mkdtemp()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    defaults = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "default_root_dir": root}
    trainer = pl.Trainer(callbacks=list(callbacks), **{**quiet, **defaults, **kwargs})
    weakref.finalize(trainer, shutil.rmtree, root, ignore_errors=True)
    return trainer


def fit(module: pl.LightningModule, *callbacks: Any, loader: Any = None, seed: int = 7, **kwargs: Any) -> pl.Trainer:
    """Seed everything, then train on the small problem."""
    with redirect_stderr(StringIO()):
        pl.seed_everything(seed, workers=True)
    trainer = make_trainer(*callbacks, **kwargs)
    trainer.fit(module, train_loader() if loader is None else loader, val_loader())
    return trainer


def resume(path: Any, module: pl.LightningModule, *callbacks: Any, max_epochs: int = 3) -> pl.Trainer:
    """Train on from a checkpoint of the small problem."""
    with redirect_stderr(StringIO()):
        pl.seed_everything(11)
    trainer = make_trainer(*callbacks, max_epochs=max_epochs)
    trainer.fit(module, train_loader(), val_loader(), ckpt_path=path)
    return trainer


def trained_state(module: Classifier) -> dict[str, Any]:
    """Everything that training leaves behind, as values that compare with ``==``."""
    return {
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "losses": list(module.losses),
        "batches": copy.deepcopy(module.batches),
        "modes": [layer.training for layer in module.modules()],
    }


def reference_scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """LEEP and the EEP's accuracy by the paper's formulas, in float64."""
    theta = np.asarray(logits.detach().double().softmax(1))
    y = np.asarray(labels)
    joint = np.stack([theta[y == k].sum(0) for k in range(C)])
    eep = theta @ (joint / joint.sum(0)).T
    return {
        "leep": float(np.log(eep[np.arange(len(y)), y]).mean()),
        "eep_accuracy": float((eep.argmax(1) == y).mean()),
    }
