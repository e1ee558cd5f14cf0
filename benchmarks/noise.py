"""LEEP and its leave-one-out form on labels that have nothing to do with the source's output.

    python benchmarks/noise.py [--target-classes 100] [--permutations 20] [--seed 0]

Plain LEEP is in-sample: it climbs far above the floor -H(Y), the LEEP of a source that says nothing, the more so the
fewer rows there are for each source class and the more confident the source. Its leave-one-out form has to stay at or
below the floor within two standard errors, and the permutation null has to find LEEP where the shuffles are. The exit
status is 1 if a leave-one-out form does not.
"""

import argparse
import itertools
import sys
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_leep import EEPScores
from lightning_leep.functional import permutation_null

ROWS = (100, 300, 1000, 3000, 10_000)
SOURCE_CLASSES = (10, 100, 1000)
SOURCES = ("soft", "confident", "one-hot")


class Noise(NamedTuple):
    """Scores of one source on noise, in nats."""

    leep: float
    leave_one_out: float
    standard_error: float
    floor: float
    null_mean: float
    p_value: float


def source_output(kind: str, n: int, num_source_classes: int, generator: torch.Generator) -> Tensor:
    """``[n, Z]``: logits of standard deviation 1 (soft) or 10 (confident), or the decisions of the latter."""
    logits = torch.randn(n, num_source_classes, generator=generator) * (1.0 if kind == "soft" else 10.0)
    theta = logits.softmax(dim=1)
    return torch.eye(num_source_classes)[theta.argmax(dim=1)] if kind == "one-hot" else theta


def measure(theta: Tensor, target: Tensor, num_target_classes: int, num_permutations: int) -> Noise:
    num_source_classes = theta.shape[1]
    metric = EEPScores(num_target_classes, num_source_classes, from_logits=False)
    metric.update(theta, target)
    scores = {name: value.item() for name, value in metric.compute().items()}
    frequency = target.bincount().double() / len(target)
    null = permutation_null([theta], [target], num_target_classes, num_source_classes, num_permutations)
    as_high = int((null >= scores["leep"] - 1e-9).sum())
    return Noise(
        leep=scores["leep"],
        leave_one_out=scores["leave_one_out_leep"],
        standard_error=scores["leave_one_out_leep_standard_error"],
        floor=torch.xlogy(frequency, frequency).sum().item(),
        null_mean=null.mean().item(),
        p_value=(1 + as_high) / (1 + num_permutations),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target-classes", type=int, default=100)
    parser.add_argument("--permutations", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(arguments.seed)
    print("| source | n | Z | LEEP | leave-one-out | its SE | floor | permutation mean | p | at or below the floor |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    failed = 0
    for kind, n, num_source_classes in itertools.product(SOURCES, ROWS, SOURCE_CLASSES):
        target = torch.randint(arguments.target_classes, (n,), generator=generator)
        theta = source_output(kind, n, num_source_classes, generator)
        noise = measure(theta, target, arguments.target_classes, arguments.permutations)
        below = noise.leave_one_out <= noise.floor + 2 * noise.standard_error
        failed += not below
        print(
            f"| {kind} | {n:,} | {num_source_classes} | {noise.leep:.3f} | {noise.leave_one_out:.3f} | "
            f"{noise.standard_error:.3f} | {noise.floor:.3f} | {noise.null_mean:.3f} | {noise.p_value:.2f} | "
            f"{'yes' if below else 'NO'} |",
            flush=True,
        )
    print(f"\n{failed} of {len(SOURCES) * len(ROWS) * len(SOURCE_CLASSES)} leave-one-out forms are above the floor.")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
