"""Data and networks of the experiments: CIFAR-100 under a CIFAR-10 network, or digits under a network for other digits.

CIFAR-100 is read from torchvision's layout, ``ROOT/cifar-100-python/{train,test,meta}`` (pickles; Krizhevsky 2009). The
weights are those of a CIFAR ResNet-20 or -32 in the format of github.com/akamaster/pytorch_resnet_cifar10. With
``--quick`` neither is needed: the digits ship inside scikit-learn.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Digits that the quick source knows. The others and their mirror images are the ten target classes.
SOURCE_DIGITS = 5


@dataclass(frozen=True)
class Images:
    """Normalised images ``[n, channels, h, h]`` of all target classes, their labels ``[n]``, and the classes' names."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    names: tuple[str, ...]

    def to(self, device: str) -> "Images":
        """The same images on a device."""
        parts = (self.train, self.train_labels, self.test, self.test_labels)
        return Images(*(part.to(device) for part in parts), names=self.names)


def load_cifar100(root: Path) -> Images:
    """Read CIFAR-100 from torchvision's layout."""
    parts = []
    for split in ("train", "test"):
        with open(root / "cifar-100-python" / split, "rb") as file:
            stored = pickle.load(file, encoding="latin1")
        images = torch.from_numpy(np.asarray(stored["data"])).view(-1, 3, 32, 32).float() / 255  # [n, 3, 32, 32]
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        parts += [(images - mean) / std, torch.tensor(stored["fine_labels"])]
    with open(root / "cifar-100-python" / "meta", "rb") as file:
        names = pickle.load(file, encoding="latin1")["fine_label_names"]
    return Images(*parts, names=tuple(names))


def load_digits(seed: int = 0) -> tuple[Images, tuple[Tensor, Tensor]]:
    """Digits 5 to 9 and their mirror images as ten target classes; digits 0 to 4 as the source's images and labels."""
    from sklearn.datasets import load_digits as load

    data = load()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 8 - 1  # [1797, 1, 8, 8]
    labels = torch.tensor(data.target)
    known = labels < SOURCE_DIGITS
    target = torch.cat([images[~known], images[~known].flip(3)])
    classes = torch.cat([labels[~known] - SOURCE_DIGITS, labels[~known]])
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    target, classes = target[order], classes[order]
    place = torch.stack([(classes == k).cumsum(0) for k in range(10)])  # [10, n]
    first = place.gather(0, classes.unsqueeze(0)).squeeze(0) <= 100  # [n]
    names = tuple(f"{digit}{mirrored}" for mirrored in ("", " mirrored") for digit in range(SOURCE_DIGITS, 10))
    found = Images(target[first], classes[first], target[~first], classes[~first], names)
    return found, (images[known], labels[known])


class Block(nn.Module):
    """Two 3 x 3 convolutions; the shortcut subsamples and pads with zero channels (He et al. 2016, option A)."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.pad = stride, (planes - in_planes) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``[n, planes, h, h]``."""
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(out + shortcut)


class ResNet(nn.Module):
    """ResNet for small images: 16, 32, 64 channels, mean over space, one linear layer (He et al. 2016, section 4.2)."""

    def __init__(self, blocks: int, num_classes: int, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stages, width = [], 16
        for planes, stride in ((16, 1), (32, 2), (64, 2)):
            steps = [stride] + [1] * (blocks - 1)
            stages.append(nn.Sequential(*(Block(width if i == 0 else planes, planes, s) for i, s in enumerate(steps))))
            width = planes
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(64, num_classes)

    def features(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Input of the head ``[n, 64]``, and the mean over space of the stem and of each block, by name."""
        x = functional.relu(self.bn1(self.conv1(x)))
        layers = {"stem": x.mean((2, 3))}
        for stage in ("layer1", "layer2", "layer3"):
            for name, block in self.get_submodule(stage).named_children():
                x = block(x)
                layers[f"{stage}.{name}"] = x.mean((2, 3))  # [n, planes]
        return x.mean((2, 3)), layers

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[n, C]``."""
        return self.linear(self.features(x)[0])


def load_source(weights: Path) -> ResNet:
    """Read a CIFAR-10 network; the number of its blocks is found in the file."""
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    state = {name.removeprefix("module."): value for name, value in state.items()}
    blocks = len({name.split(".")[1] for name in state if name.startswith("layer1.")})
    source = ResNet(blocks, num_classes=len(state["linear.bias"]))
    source.load_state_dict(state)
    return source.eval()


def train_source(images: Tensor, labels: Tensor, epochs: int = 4, seed: int = 0) -> ResNet:
    """Train the quick source; it takes a few seconds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        source = ResNet(1, SOURCE_DIGITS, channels=1)
        optimizer = torch.optim.Adam(source.parameters(), lr=5e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(labels)).split(32):
                optimizer.zero_grad()
                functional.cross_entropy(source(images[rows]), labels[rows]).backward()
                optimizer.step()
    return source.eval()
