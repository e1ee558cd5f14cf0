"""A network of seven layers and a head, and its training from one layer on, with the layers before it run once."""

from collections import OrderedDict
from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import LayerTransfer

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "full6", "full7")


def make_network(num_classes: int, channels: int, size: int, seed: int) -> nn.Sequential:
    """Five convolutions and two full layers, each with BatchNorm and ReLU, and a linear head, for ``[n, c, h, h]``."""

    def convolution(before: int, after: int, pool: bool) -> nn.Sequential:
        parts = [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*parts, *([nn.MaxPool2d(2)] if pool else []))

    def full(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU())

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [
            convolution(channels, 16, True),  # -> [n, 16, h/2, h/2]
            convolution(16, 32, True),  # -> [n, 32, h/4, h/4]
            convolution(32, 32, False),
            convolution(32, 64, True),  # -> [n, 64, h/8, h/8]
            convolution(64, 64, False),
            full(64 * (size // 8) ** 2, 128),  # -> [n, 128]
            full(128, 128),
        ]
        layers = OrderedDict([*zip(LAYERS, layers, strict=True), ("head", nn.Linear(128, num_classes))])
        return nn.Sequential(layers).to(memory_format=torch.channels_last)  # twice as fast on a CPU


class FromLayer(pl.LightningModule):
    """A network whose first layers have been run: batches are their outputs, and training runs the others.

    Args:
        network: The whole network.
        first: Number of layers that have been run.
        learning_rate: Largest learning rate of SGD; it falls to 0 by a cosine.
    """

    def __init__(self, network: nn.Sequential, first: int, learning_rate: float = 0.05) -> None:
        super().__init__()
        self.network, self.first, self.learning_rate = network, first, learning_rate
        self.hits: list[Tensor] = []
        self.accuracy = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits from the outputs of the layers that have been run."""
        for layer in self.network[self.first :]:
            inputs = layer(inputs)
        return inputs  # [n, C]

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of one batch."""
        inputs, labels = batch
        return nn.functional.cross_entropy(self(inputs), labels)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Note which test images are classified correctly."""
        inputs, labels = batch
        self.hits.append(self(inputs).argmax(1) == labels)

    def on_validation_epoch_end(self) -> None:
        """Set the accuracy of all test images."""
        self.accuracy = torch.cat(self.hits).double().mean().item()
        self.hits.clear()

    def configure_optimizers(self) -> dict:
        """SGD with momentum for the layers that are trained, and a cosine."""
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=self.learning_rate, momentum=0.9, weight_decay=5e-4)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def run_layers(layers: Sequence[nn.Module], images: Tensor, device: str) -> Tensor:
    """Outputs of frozen layers for all images, on the CPU."""
    parts = []
    for batch in images.split(500):
        batch = batch.to(device)
        for layer in layers:
            batch = layer.to(device).eval()(batch)
        parts.append(batch.cpu())
    return torch.cat(parts)


def train_from(
    network: nn.Sequential, frozen: int, data: Sequence[Tensor], epochs: int, seed: int, accelerator: str = "cpu"
) -> float:
    """Train what follows the first ``frozen`` layers, and return the test accuracy after the last epoch.

    The frozen layers run once; :class:`~lightning_leep.LayerTransfer` keeps them as they are.

    Args:
        network: The network; it is trained in place.
        frozen: Number of layers that are kept.
        data: Training images, labels, test images, labels.
        epochs: Passes over the training images.
        seed: Seed of the order of images.
        accelerator: Lightning's accelerator.
    """
    images, labels, test, test_labels = data
    device = "cuda" if accelerator == "gpu" else "cpu"
    train, held_out = (run_layers(network[:frozen], part, device) for part in (images, test))
    module = FromLayer(network, frozen)
    names = [*LAYERS, "head"]
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        callbacks=[LayerTransfer(names[frozen])] if frozen else [],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=epochs,
    )
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(train, labels), 64, shuffle=True, generator=order, drop_last=True)
    trainer.fit(module, loader, DataLoader(TensorDataset(held_out, test_labels), 500))
    return module.accuracy
