"""Cost of a scoring pass with every score on, against inference alone: ResNet-20 on the CIFAR-100 test images.

    python benchmarks/scoring_pass.py --data DIR [--repeats 5]

DIR holds the images and weights (see ``cifar_data.py``). Each ratio compares two runs that follow each other, over the
same loader and model: their CPU time, or on a GPU the time that passes. N-LEEP is left out, as its mixture is fitted by
scikit-learn.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from cifar_data import load_images, load_network, normalise
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    source = load_network(arguments.data, "resnet20").eval().to(device)
    images, labels = load_images(arguments.data, "test")
    loader = DataLoader(TensorDataset(normalise(images), labels), batch_size=128)

    clock = time.process_time if device.type == "cpu" else time.perf_counter

    @torch.no_grad()
    def inference() -> float:
        start = clock()
        for batch, _ in loader:
            source(batch.to(device))
        return clock() - start

    def scoring(**options: Any) -> float:
        start = clock()
        score(source, loader, 100, progress=False, **options)
        return clock() - start

    inference()
    scoring()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(images)} images, {device}")
    ways: dict[str, dict[str, Any]] = {
        "every score and layer": {},
        "no permutation null": {"num_permutations": 0},
        "no layers": {"layers": None},
    }
    for name, options in ways.items():
        pairs = [(scoring(**options), inference()) for _ in range(arguments.repeats)]
        ratios = sorted(scored / bare for scored, bare in pairs)
        print(
            f"{name}: {statistics.median(ratios):.3f} times inference alone (median of {len(ratios)} pairs, "
            f"{ratios[0]:.3f} to {ratios[-1]:.3f}); inference {min(bare for _, bare in pairs):.2f} s"
        )


if __name__ == "__main__":
    main()
