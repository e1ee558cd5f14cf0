"""Cost of ranking two ResNets, against two bare inference loops over the same decoded images.

    python benchmarks/ranking_cost.py --data DIR [--images 2000] [--repeats 3]

DIR holds images and weights (see ``cifar_data.py``). Each ratio compares CPU times that follow each other.
The images are decoded once in the ranking and before the loops, so that what is compared is scoring.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from cifar_data import load_images, load_network, normalise
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import rank_sources

NETWORKS = ("resnet20", "resnet32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    networks = {name: load_network(arguments.data, name).eval() for name in NETWORKS}
    images, labels = load_images(arguments.data, "test")
    data = TensorDataset(normalise(images[: arguments.images]), labels[: arguments.images])
    decoded = [batch for batch, _ in DataLoader(data, batch_size=128)]

    @torch.no_grad()
    def inference() -> float:
        start = time.process_time()
        for network in networks.values():
            for batch in decoded:
                network(batch)
        return time.process_time() - start

    def ranking() -> float:
        start = time.process_time()
        rank_sources(networks, data, 100, batch_size=128, progress=False)
        return time.process_time() - start

    inference()
    ranking()
    pairs = [(ranking(), inference()) for _ in range(arguments.repeats)]
    ratios = sorted(ranked / bare for ranked, bare in pairs)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(data)} images, {len(networks)} networks")
    print(
        f"ranking: {statistics.median(ratios):.3f} times inference alone (median of {len(ratios)} pairs, "
        f"{ratios[0]:.3f} to {ratios[-1]:.3f}; {statistics.median(bare for _, bare in pairs):.1f} s alone)"
    )


if __name__ == "__main__":
    main()
