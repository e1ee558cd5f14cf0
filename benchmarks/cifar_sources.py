"""Small networks trained on classes of CIFAR-100 at 16 x 16 pixels; sources of the ranking benchmark."""

from pathlib import Path
from typing import NamedTuple

import torch
from cifar_data import NUM_CLASSES, CifarResNet, load_images, load_network, normalise
from cifar_finetune import augment, test_accuracy
from torch import Tensor, nn
from torch.nn import functional


class Recipe(NamedTuple):
    """How a source is made."""

    seed: int = 0
    blocks: int = 1
    width: int = 8
    epochs: int = 8
    noise: float = 0.0  # share of training labels that are drawn at random
    classes: int = 20
    first_class: int = 0
    images: int = 200


SOURCES = {
    "base": Recipe(),
    "twin": Recipe(seed=1),
    "other classes": Recipe(first_class=20),
    "more other classes": Recipe(first_class=40),
    "three epochs": Recipe(epochs=3),
    "sixteen epochs": Recipe(epochs=16),
    "noise 0.3": Recipe(noise=0.3),
    "noise 0.6": Recipe(noise=0.6),
    "40 classes": Recipe(classes=40, images=100),
    "5 classes": Recipe(classes=5, epochs=32),
    "narrow": Recipe(width=6),
    "wide": Recipe(width=12),
    "wide, noise 0.5": Recipe(width=12, noise=0.5),
    "deep": Recipe(blocks=2),
    "deep, three epochs": Recipe(blocks=2, epochs=3),
}
NETWORKS = ("resnet20", "resnet32")


class Images(NamedTuple):
    """All images at 16 x 16 pixels, with classes in a random order that is always the same."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    def of(self, classes: range, images: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Training images and labels of some classes, drawn at random, and all test images and labels of them."""
        generator = torch.Generator().manual_seed(seed)
        places = []
        for label in classes:
            rows = (self.train_labels == label).nonzero().flatten()
            places.append(rows[torch.randperm(len(rows), generator=generator)[:images]])
        chosen = torch.cat(places)
        tested = ((self.test_labels >= classes.start) & (self.test_labels < classes.stop)).nonzero().flatten()
        return (self.train[chosen], self.train_labels[chosen] - classes.start, self.test[tested],
                self.test_labels[tested] - classes.start)  # fmt: skip


def load(data: Path) -> Images:
    order = torch.randperm(NUM_CLASSES, generator=torch.Generator().manual_seed(0))
    parts = []
    for split in ("train", "test"):
        images, labels = load_images(data, split)
        parts += [functional.avg_pool2d(normalise(images), 2), order[labels]]
    return Images(*parts)


def train(
    model: nn.Module, images: Tensor, target: Tensor, epochs: int, rate: float, batch_size: int, seed: int
) -> None:
    """SGD with momentum and a cosine, flips and shifts."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    steps = epochs * -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(batch_size):
            optimizer.zero_grad()
            functional.cross_entropy(model(augment(images[rows], generator)), target[rows]).backward()
            optimizer.step()
            schedule.step()


def source(name: str, images: Images, data: Path, folder: Path) -> CifarResNet:
    """A source with its head: trained now, or read from the folder."""
    if name in NETWORKS:
        return load_network(data, name)
    recipe, file = SOURCES[name], folder / f"{name.replace(' ', '_')}.pt"
    torch.manual_seed(recipe.seed)
    model = CifarResNet(recipe.blocks, recipe.classes, recipe.width)
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    x, y, _, _ = images.of(own_classes(recipe), recipe.images, recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    wrong = torch.rand(len(y), generator=generator) < recipe.noise
    y = torch.where(wrong, torch.randint(recipe.classes, y.shape, generator=generator), y)
    train(model, x, y, recipe.epochs, 0.1, 64, recipe.seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), file)
    return model.eval()


def own_classes(recipe: Recipe) -> range:
    return range(recipe.first_class, recipe.first_class + recipe.classes)


def own_accuracy(name: str, images: Images, data: Path, folder: Path) -> float | None:
    """Test accuracy on the source's own classes; None for the CIFAR-10 networks, whose images are not here."""
    model = source(name, images, data, folder)
    if name in NETWORKS:
        return None
    _, _, x, y = images.of(own_classes(SOURCES[name]), 1, 0)
    return test_accuracy(model, x, y)
