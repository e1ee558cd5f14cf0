"""Data and networks of the examples: digits 0-4 are the source task, digits 5-9 the target task.

The images ship inside scikit-learn: 1797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, UCI repository).
"""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

SOURCE_DIGITS = (0, 1, 2, 3, 4)
TARGET_DIGITS = (5, 6, 7, 8, 9)


def load_digits(digits: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Images ``[n, 1, 8, 8]`` in 0..1 of the chosen digits, and their labels ``0 .. len(digits) - 1``."""
    from sklearn.datasets import load_digits as load

    data = load()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16  # [1797, 1, 8, 8]
    labels = torch.tensor(data.target)
    chosen = torch.isin(labels, torch.tensor(digits))
    index = torch.full((10,), -1).index_copy(0, torch.tensor(digits), torch.arange(len(digits)))
    return images[chosen], index[labels[chosen]]


class Digits(pl.LightningDataModule):
    """Some of the digits: a few training images of each, the remaining images for validation.

    Args:
        digits: Digits to use; they become the classes 0, 1, ...
        images_per_class: Training images of each digit.
        batch_size: Images in a training batch.
        seed: Seed of the split.
    """

    def __init__(
        self,
        digits: tuple[int, ...] = TARGET_DIGITS,
        images_per_class: int = 20,
        batch_size: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.digits = tuple(digits)
        self.images_per_class = images_per_class
        self.batch_size = batch_size
        self.seed = seed
        self.classes = [str(digit) for digit in digits]

    def setup(self, stage: str | None = None) -> None:
        """Split the images."""
        images, labels = load_digits(self.digits)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))
        rank = torch.stack([(labels[order] == k).cumsum(0) for k in range(len(self.digits))])  # [C, n]
        chosen = rank.gather(0, labels[order].unsqueeze(0)).squeeze(0) <= self.images_per_class  # [n]
        self.train = TensorDataset(images[order[chosen]], labels[order[chosen]])
        self.val = TensorDataset(images[order[~chosen]], labels[order[~chosen]])

    def train_dataloader(self) -> DataLoader:
        """The training images, shuffled."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """The remaining images."""
        return DataLoader(self.val, batch_size=500)


def make_network(num_classes: int) -> nn.Sequential:
    """A small convolutional network; its last layer is the head."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),  # [n, 1, 8, 8] -> [n, 16, 8, 8]
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),  # -> [n, 32, 8, 8]
        nn.ReLU(),
        nn.MaxPool2d(2),  # -> [n, 32, 4, 4]
        nn.Conv2d(32, 64, 3, padding=1),  # -> [n, 64, 4, 4]
        nn.ReLU(),
        nn.MaxPool2d(2),  # -> [n, 64, 2, 2]
        nn.Flatten(),  # -> [n, 256]
        nn.Linear(256, num_classes),  # -> [n, C]
    )


def pretrain(
    digits: tuple[int, ...] = SOURCE_DIGITS, epochs: int = 15, seed: int = 0, network: nn.Module | None = None
) -> nn.Module:
    """Train the source classifier on its own digits, in a plain loop; takes a few seconds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        images, labels = load_digits(digits)
        network = network or make_network(len(digits))
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(labels)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
                optimizer.step()
    return network


class DigitClassifier(pl.LightningModule):
    """The network that is fine-tuned.

    Args:
        num_classes: Classes of the target task.
        trainable: "head" trains a new last layer on the frozen source network, "all" every layer, "scratch" every
            layer from random weights.
        learning_rate: Step size of SGD with momentum.
        source: The pre-trained classifier; None trains one. Its layers are copied, so it stays unchanged.
    """

    def __init__(
        self,
        num_classes: int = 5,
        trainable: str = "all",
        learning_rate: float = 1e-2,
        source: nn.Sequential | None = None,
    ) -> None:
        super().__init__()
        if trainable not in ("head", "all", "scratch"):
            raise ValueError(f"`trainable` must be one of head, all, scratch, got {trainable!r}.")
        self.trainable = trainable
        self.learning_rate = learning_rate
        self.network = make_network(num_classes)
        self.source_classifier = source or pretrain()
        if trainable != "scratch":
            self.network[:-1].load_state_dict(self.source_classifier[:-1].state_dict())
        self.network[:-1].requires_grad_(trainable != "head")
        self.source_classifier.requires_grad_(False)
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")

    def source_logits(self, images: Tensor) -> Tensor:
        """Logits of the pre-trained classifier with its original head; LEEPCallback scores this method."""
        return self.source_classifier(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the network that is fine-tuned."""
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of one batch."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Validation accuracy."""
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("val_acc", self.accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum for the layers that are trained."""
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trained, lr=self.learning_rate, momentum=0.9)
