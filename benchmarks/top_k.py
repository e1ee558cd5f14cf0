"""How far LEEPMetric(top_k=k) is from LEEP and how wide its interval is, on outputs like those of an ImageNet model.

    python benchmarks/top_k.py [--rows 750] [--target-classes 15] [--tasks 5]

Source outputs are synthetic: logits are products of features with the directions of 1000 source classes that come in
50 families, so that probable classes are followed by a long tail of related ones, and some images are surer than
others. Target classes are unknown to the source. Three sharpnesses; the mean largest probability is printed, for
comparison with one's own model. For each k over several random tasks: the mean absolute and the largest error of
`compute`, the mean distance of both ends of `interval` from LEEP, and whether LEEP was ever outside.
"""

import argparse
import math
import time

import torch
from torch import Tensor

from lightning_leep import LEEPMetric

KEPT = (1, 4, 8, 16, 32, 64, 128)
SHARPNESS = {"soft": 2.0, "typical": 3.0, "confident": 5.0}
NUM_SOURCE_CLASSES, NUM_FAMILIES, NUM_FEATURES = 1000, 50, 64


def task(num_rows: int, num_target_classes: int, sharpness: float, seed: int) -> tuple[Tensor, Tensor]:
    """Logits ``[n, Z]`` and labels ``[n]``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    family = torch.arange(NUM_SOURCE_CLASSES) % NUM_FAMILIES
    directions = (normal(NUM_FAMILIES, NUM_FEATURES)[family] + normal(NUM_SOURCE_CLASSES, NUM_FEATURES)) / 2**0.5
    target = torch.arange(num_rows) % num_target_classes
    features = (normal(num_target_classes, NUM_FEATURES)[target] + normal(num_rows, NUM_FEATURES)) / 2**0.5
    sureness = (0.4 * normal(num_rows, 1)).exp()
    return sharpness * sureness * features @ directions.T / NUM_FEATURES**0.5, target


def scored(logits: Tensor, target: Tensor, num_target_classes: int, top_k: int | None) -> tuple[LEEPMetric, float]:
    """The metric after all rows in batches of 256, and the seconds of updates and compute."""
    metric = LEEPMetric(num_target_classes, NUM_SOURCE_CLASSES, top_k=top_k)
    start = time.perf_counter()
    for batch, labels in zip(logits.split(256), target.split(256), strict=True):
        metric.update(batch, labels)
    metric.compute()
    return metric, time.perf_counter() - start


def kept_bytes(metric: LEEPMetric) -> int:
    states = [metric.rows, metric.labels] + ([] if metric.top_k is None else [metric.columns, metric.residuals])
    return sum(tensor.nbytes for state in states for tensor in state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=750)
    parser.add_argument("--target-classes", type=int, default=15)
    parser.add_argument("--tasks", type=int, default=5)
    arguments = parser.parse_args()
    n, c = arguments.rows, arguments.target_classes
    print(f"Z = {NUM_SOURCE_CLASSES}, C = {c}, n = {n}, {arguments.tasks} tasks; nats")
    for name, sharpness in SHARPNESS.items():
        tasks = [task(n, c, sharpness, seed) for seed in range(arguments.tasks)]
        exact = [scored(*data, c, top_k=None) for data in tasks]
        leep = torch.stack([metric.compute() for metric, _ in exact])
        largest = torch.stack([logits.softmax(dim=1).amax(dim=1).mean() for logits, _ in tasks]).mean()
        seconds = min(seconds for _, seconds in exact)
        print(f"\n{name}: mean largest probability {largest:.2f}, LEEP {leep.mean():.3f}, floor {-math.log(c):.3f}")
        print(
            f"{'k':>5} {'bytes/row':>9} {'mass left':>9} {'error':>8} {'largest':>8} {'low':>8} {'high':>8} "
            f"{'contains':>8} {'ms':>6}"
        )
        print(
            f"{'all':>5} {kept_bytes(exact[0][0]) // n:>9} {0:>9.3f} {0:>8.4f} {0:>8.4f} {0:>+8.4f} {0:>+8.4f} "
            f"{'':>8} {1e3 * seconds:>6.0f}"
        )
        for k in KEPT:
            runs = [scored(*data, c, top_k=k) for data in tasks]
            error = torch.stack([metric.compute() for metric, _ in runs]) - leep
            low, high = torch.tensor([metric.interval() for metric, _ in runs], dtype=torch.float64).T - leep
            mass = torch.cat([residual for metric, _ in runs for residual in metric.residuals]).mean()
            holds = f"{int(((low <= 0) & (high >= 0)).sum())}/{len(runs)}"
            print(
                f"{k:>5} {kept_bytes(runs[0][0]) // n:>9} {mass:>9.3f} {error.abs().mean():>8.4f} "
                f"{error.abs().max():>8.4f} {low.mean():>+8.4f} {high.mean():>+8.4f} {holds:>8} "
                f"{1e3 * min(seconds for _, seconds in runs):>6.0f}"
            )


if __name__ == "__main__":
    main()
