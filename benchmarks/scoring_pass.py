"""Cost of a scoring pass with every score on, against inference alone: ResNet-20 on the CIFAR-100 test images.

    python benchmarks/scoring_pass.py --data DIR [--repeats 5]

DIR holds the images and weights (see ``cifar_data.py``). Each ratio compares two runs that follow each other, over the
same loader and model: their CPU time, or on a GPU the time that passes. N-LEEP is left out, as its mixture is fitted by
scikit-learn. On a CPU it also prints the work on the layers after the last batch, in symmetric eigendecompositions of
size 1024 (or n, if that is smaller), and the peak memory of a pass above that of one without layers.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from cifar_data import load_images, load_network, normalise
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import score
from lightning_leep.metrics.layer_scores import LayerScores

#: Most features of all layers together that a pass keeps.
MOST_FEATURES = 1024


def closing_work(report: Any, repeats: int) -> str:
    """The scores of as many layers of the same widths as in a report, after the last batch."""
    widths, n, num_classes = (
        [layer.kept_width for layer in report.layers],
        report.num_samples,
        report.num_target_classes,
    )
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % num_classes
    rows = torch.randn(num_classes, sum(widths), generator=generator)[labels] / 3
    rows += torch.randn(rows.shape, generator=generator)
    metric, size = LayerScores(num_classes, widths), min(n, MOST_FEATURES)
    for batch, target in zip(rows.split(128), labels.split(128), strict=True):
        metric.update(batch, target)
    scatter = torch.randn(size, 2 * size, generator=generator, dtype=torch.float64)
    scatter = scatter @ scatter.T
    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        start = time.process_time()
        metric._computed = None
        metric.compute()
        between = time.process_time()
        torch.linalg.eigh(scatter)
        times.append((between - start, time.process_time() - between))
    closing, decomposition = (min(of_one) for of_one in zip(*times, strict=True))
    return (
        f"layers after the last batch: {closing / decomposition:.1f} eigendecompositions of size {size} "
        f"({closing:.2f} s; {len(widths)} layers, {sum(widths)} features)"
    )


def peak_memory(data: Path, way: str) -> int:
    """Peak resident bytes of a process that makes one pass; large blocks return to the system when they are freed."""
    command = [sys.executable, __file__, "--data", str(data), "--memory", way]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    source = load_network(arguments.data, "resnet20").eval().to(device)
    images, labels = load_images(arguments.data, "test")
    loader = DataLoader(TensorDataset(normalise(images), labels), batch_size=128)

    ways: dict[str, dict[str, Any]] = {
        "every score and layer": {},
        "no permutation null": {"num_permutations": 0},
        "no layers": {"layers": None},
        "two readings": {"memory": "second_pass"},
        "two readings, no layers": {"memory": "second_pass", "layers": None},
    }
    if arguments.memory:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak restarts from what is resident now
        score(source, loader, 100, progress=False, **ways[arguments.memory])
        status = Path("/proc/self/status").read_text()
        print(1024 * int(status.split("VmHWM:")[1].split()[0]))
        return

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
    report = score(source, loader, 100, progress=False)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(images)} images, {device}")
    for name, options in list(ways.items())[:3]:
        pairs = [(scoring(**options), inference()) for _ in range(arguments.repeats)]
        ratios = sorted(scored / bare for scored, bare in pairs)
        print(
            f"{name}: {statistics.median(ratios):.3f} times inference alone (median of {len(ratios)} pairs, "
            f"{ratios[0]:.3f} to {ratios[-1]:.3f}); inference {min(bare for _, bare in pairs):.2f} s"
        )
    if device.type == "cpu":
        print(closing_work(report, arguments.repeats))
        most = len(images) * MOST_FEATURES * 4 / 1e6
        for name in ("every score and layer", "two readings"):
            without = "no layers" if name == "every score and layer" else f"{name}, no layers"
            extra = (peak_memory(arguments.data, name) - peak_memory(arguments.data, without)) / 1e6
            print(
                f"{name}: {extra:.0f} MB more memory than without layers (n x {MOST_FEATURES} x 4 bytes: {most:.0f} MB)"
            )


if __name__ == "__main__":
    main()
