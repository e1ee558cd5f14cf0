"""CIFAR-100 as a target of two CIFAR-10 networks: images, networks, features computed once, and random tasks.

The data folder holds `cifar100/{train,test}.npz` (PNG images packed one behind the other: `blob`, `offsets`, `labels`)
and `weights/resnet20-*.th`, `weights/resnet32-*.th` (CIFAR-10 networks of github.com/akamaster/pytorch_resnet_cifar10).
"""

import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

NETWORKS = {"resnet20": 3, "resnet32": 5}  # name -> residual blocks a stage
NUM_SOURCE_CLASSES, NUM_FEATURES, NUM_CLASSES = 10, 64, 100
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAIN_IMAGES = 200  # images of a class that can be drawn for training
CACHE_NAME = "cifar_cache.npz"


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions; the shortcut subsamples and pads with zero channels (He et al. 2016, option A)."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.pad = stride, (planes - in_planes) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(out + shortcut)


class CifarResNet(nn.Module):
    """ResNet for small images: three stages, average pooling, one linear layer (He et al. 2016, 4.2).

    The stages have w, 2 w and 4 w channels, and w is 16 in the paper.
    """

    def __init__(self, num_blocks: int, num_classes: int = NUM_SOURCE_CLASSES, width: int = NUM_FEATURES // 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages, in_planes = [], width
        for planes, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            blocks = []
            for stride_of_block in [stride] + [1] * (num_blocks - 1):
                blocks.append(BasicBlock(in_planes, planes, stride_of_block))
                in_planes = planes
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(4 * width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features, [n, 3, 32, 32] -> [n, 4 w]."""
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))


def load_network(data: Path, network: str) -> CifarResNet:
    """The CIFAR-10 network with its trained weights, in eval mode."""
    (file,) = (data / "weights").glob(f"{network}-*.th")
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    model = CifarResNet(NETWORKS[network])
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return model.eval()


def load_images(data: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images [n, 3, 32, 32] uint8 and labels [n] of `"train"` or `"test"`."""
    from PIL import Image

    with np.load(data / "cifar100" / f"{split}.npz") as packed:
        blob, offsets, labels = packed["blob"].tobytes(), packed["offsets"], packed["labels"]
    files = [io.BytesIO(blob[start:end]) for start, end in itertools.pairwise(offsets)]
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels.astype(np.int64))


def normalise(images: Tensor) -> Tensor:
    """uint8 images -> the input that the networks were trained on."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


@torch.no_grad()
def extract(data: Path) -> dict[str, np.ndarray]:
    """Features, logits and labels of every image under every network: `{network}_{split}_features` and so on."""
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        images, labels = load_images(data, split)
        arrays[f"{split}_labels"] = labels.numpy()
        for network in NETWORKS:
            model = load_network(data, network)
            features = torch.cat([model.features(normalise(batch)) for batch in images.split(250)])
            arrays[f"{network}_{split}_features"] = features.numpy()
            arrays[f"{network}_{split}_logits"] = model.linear(features).numpy()
    return arrays


def load_cache(data: Path, cache: Path | None) -> dict[str, np.ndarray]:
    """The arrays of `extract`, from `cache` when it holds them; extracted (and kept there) otherwise."""
    file = None if cache is None else cache / CACHE_NAME
    if file is not None and file.exists():
        with np.load(file) as stored:
            return dict(stored)
    arrays = extract(data)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **arrays)
    return arrays


@dataclass(frozen=True)
class Task:
    """A random target task: `num_classes` of CIFAR-100's classes, `num_images` training images of each."""

    family: str
    network: str
    num_classes: int
    num_images: int
    seed: int

    def rows(self, train_labels: np.ndarray, test_labels: np.ndarray) -> tuple[np.ndarray, ...]:
        """(train index, train target, test index, test target); all test images of the chosen classes are used."""
        rng = np.random.default_rng(self.seed)
        classes = rng.choice(NUM_CLASSES, self.num_classes, replace=False)
        train = [rng.choice(np.flatnonzero(train_labels == label), self.num_images, replace=False) for label in classes]
        test = [np.flatnonzero(test_labels == label) for label in classes]
        train_target = np.repeat(np.arange(self.num_classes), [len(rows) for rows in train])
        test_target = np.repeat(np.arange(self.num_classes), [len(rows) for rows in test])
        return np.concatenate(train), train_target, np.concatenate(test), test_target


def sample_tasks(num_wide: int = 160, num_small: int = 120, seed: int = 0) -> list[Task]:
    """Tasks of three families, the networks taking turns; the same call gives the same tasks.

    `uniform`: classes uniform on 2..100, images a class log-uniform on 20..200. `log_uniform`: classes log-uniform too,
    so that half of the tasks have fewer than 15 classes. `small`: 5 classes x 50 images.
    """
    rng = np.random.default_rng(seed)
    networks = list(NETWORKS)
    tasks: list[Task] = []
    for family, count in (("uniform", num_wide), ("log_uniform", num_wide), ("small", num_small)):
        for i in range(count):
            num_classes, num_images = 5, 50
            if family != "small":
                num_images = _log_uniform(rng, 20, TRAIN_IMAGES)
                num_classes = int(rng.integers(2, 101)) if family == "uniform" else _log_uniform(rng, 2, 100)
            tasks.append(Task(family, networks[i % 2], num_classes, num_images, seed=len(tasks) + 1000 * seed))
    return tasks


def _log_uniform(rng: np.random.Generator, low: int, high: int) -> int:
    """An integer in low..high whose logarithm is close to uniform."""
    return int(np.clip(np.exp(rng.uniform(np.log(low - 0.5), np.log(high + 0.5))).round(), low, high))
