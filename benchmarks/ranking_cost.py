"""Cost of ranking K sources, against K bare inference loops over the same decoded images.

    python benchmarks/ranking_cost.py --data DIR [--images 2000] [--repeats 5]
    python benchmarks/ranking_cost.py --large [--images 500] [--repeats 2]

DIR holds images and weights (see ``cifar_data.py``). Two zoos: ResNet-20 and ResNet-32 with their weights, whose
inference is cheap (0.04 and 0.07 G multiply-adds an image), and two random ResNet-20s that are twice as wide (0.16 G).
With `--large` a random ResNet-18 is given random images of 224 pixels (1.8 G). Each ranking's CPU time is divided by
the mean of those of the loops right before and after it. The images are decoded before, so that what is compared is
scoring.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from cifar_data import BasicBlock, CifarResNet, load_images, load_network, normalise
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import rank_sources

BATCH_SIZE = 128


def resnet18() -> nn.Module:
    """ResNet-18 of He et al. 2016 for 1,000 classes, with random weights."""
    stages: list[nn.Module] = []
    for planes in (64, 128, 256, 512):
        stride = 1 if planes == 64 else 2
        stages.append(nn.Sequential(BasicBlock(planes // stride, planes, stride), BasicBlock(planes, planes, 1)))
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.large:
        data = TensorDataset(torch.randn(arguments.images, 3, 224, 224), torch.arange(arguments.images) % 20)
    else:
        images, labels = load_images(arguments.data, "test")
        data = TensorDataset(normalise(images[: arguments.images]), labels[: arguments.images])
    decoded = [batch for batch, _ in DataLoader(data, batch_size=BATCH_SIZE)]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(data)} images")
    zoos: dict[str, dict[str, nn.Module]] = {"ResNet-18": {"resnet18": resnet18()}}
    if not arguments.large:
        zoos = {
            "ResNet-20 and 32": {name: load_network(arguments.data, name) for name in ("resnet20", "resnet32")},
            "two wide ResNet-20": {f"wide {i}": CifarResNet(3, width=32) for i in range(2)},
        }

    @torch.no_grad()
    def inference(networks: dict[str, nn.Module]) -> float:
        start = time.process_time()
        for network in networks.values():
            network.eval()
            for batch in decoded:
                network(batch)
        return time.process_time() - start

    def ranking(networks: dict[str, nn.Module]) -> float:
        start = time.process_time()
        rank_sources(networks, data, 20 if arguments.large else 100, batch_size=BATCH_SIZE, progress=False)
        return time.process_time() - start

    for title, networks in zoos.items():
        ranking(networks)
        bare, ratios = [inference(networks)], []
        for _ in range(arguments.repeats):
            ranked = ranking(networks)
            bare.append(inference(networks))
            ratios.append(2 * ranked / (bare[-2] + bare[-1]))
        print(
            f"{title}: ranking takes {statistics.median(ratios):.3f} times inference alone (median of {len(ratios)}, "
            f"{min(ratios):.3f} to {max(ratios):.3f}; {statistics.median(bare):.1f} s alone)"
        )


if __name__ == "__main__":
    main()
