"""Which layers transfer, what to train, and whether that was right: digits 0-4 to digits 5-9.

    python examples/layers_digits.py [--folder runs]

A small residual network learns the digits 0-4. It is scored once on 40 images of each of the digits 5-9, with all of
its layers, and every way to train that the advice compares is tried. Writes layers.png: the accuracy of a linear probe
over the depth of the network, with the recommended cut.
"""

import argparse
import copy
import logging
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from digits import SOURCE_DIGITS, DigitClassifier, Digits, pretrain
from lightning_utilities.core import rank_zero
from torch import Tensor, nn

from lightning_leep import LayerTransfer, advise, score
from lightning_leep.tensorboard import layers_figure


class Block(nn.Module):
    """A residual block; with another width it halves the resolution."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if inputs == width else nn.Conv2d(inputs, width, 1)
        self.pool = nn.Identity() if inputs == width else nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, h, w]`` -> ``[n, width, h, w]``, or half of h and w."""
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return self.pool(torch.relu(inner + self.shortcut(x)))


class ResNet(nn.Module):
    """A stem, three stages of three blocks, average pooling, a head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())  # [n, 1, 8, 8] -> [n, 16, 8, 8]
        self.layer1 = nn.Sequential(*(Block(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))  # -> [n, 32, 4, 4]
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))  # -> [n, 64, 2, 2]
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """``[n, 1, 8, 8]`` -> logits ``[n, C]``."""
        return self.head(self.layer3(self.layer2(self.layer1(self.stem(images)))).mean(dim=(2, 3)))


class Tuned(DigitClassifier):
    """Fine-tunes a copy of the source with a new head."""

    def __init__(self, source: ResNet) -> None:
        super().__init__()
        self.network = copy.deepcopy(source)
        self.network.head = nn.Linear(64, 5)


def train(source: ResNet, data: Digits, callback: pl.Callback, epochs: int) -> float:
    """Accuracy on the remaining images after training."""
    pl.seed_everything(0, verbose=False)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[callback], enable_model_summary=False, **quiet
    )
    trainer.fit(Tuned(source), data)
    return float(trainer.callback_metrics["val_acc"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="folder of layers.png")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", ".*does not have many workers.*|.*treespec.*|.*in eval mode.*")
    rank_zero.log.setLevel(logging.ERROR)  # hides Lightning's hints

    torch.manual_seed(0)
    source = pretrain(SOURCE_DIGITS, network=ResNet(len(SOURCE_DIGITS)))
    data = Digits(images_per_class=40)
    data.setup()
    report = score(source, data.train_dataloader(), num_target_classes=5, progress=False)
    advice = advise(report, test_size=len(data.val))
    print(advice)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    layers_figure(report, advice).savefig(arguments.folder / "layers.png")

    for choice in advice.choices:
        if not choice.reads:  # a head on an earlier layer needs another network
            callback = LayerTransfer(None if choice.trained_from == "all" else choice.trained_from)
            achieved = train(source, data, callback, arguments.epochs)
            print(f"{choice.what}: expected {choice.forecast.value:.3f}, achieved {achieved:.3f}")


if __name__ == "__main__":
    main()
