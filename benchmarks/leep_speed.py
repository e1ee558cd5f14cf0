"""Speed of LEEPMetric against the dense textbook formula and the floor of reading the rows; cost of a scoring pass.

    python benchmarks/leep_speed.py [--device cuda] [--repeats 5]

Every ratio compares two times of the same run on the same data. The dense formula makes the n x C matrix of the EEP,
and that of the one-hot labels. The floor reads every row twice (two sums), which is what any exact LEEP has
to do: once for the joint, once for the likelihoods.
"""

import argparse
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_leep import LEEPMetric, score

SIZES = [(5_000, 100, 10), (50_000, 10, 100), (50_000, 1000, 10), (50_000, 1000, 100), (50_000, 1000, 1000)]


def best_time(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Shortest of several runs in seconds, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def dense_numpy(probs: np.ndarray, target: np.ndarray, num_classes: int) -> float:
    one_hot = np.eye(num_classes)[target]  # [n, C]
    joint = one_hot.T @ probs  # [C, Z]
    eep = probs @ (joint / joint.sum(axis=0)).T  # [n, C]
    return float(np.log(eep[np.arange(len(target)), target]).mean())


def dense_torch(probs: Tensor, target: Tensor, num_classes: int) -> Tensor:
    one_hot = nn.functional.one_hot(target, num_classes).to(probs.dtype)  # [n, C]
    joint = one_hot.T @ probs  # [C, Z]
    eep = probs @ (joint / joint.sum(dim=0)).T  # [n, C]
    return eep.gather(1, target.unsqueeze(1)).log().mean()


def metric_time(probs: Tensor, target: Tensor, num_classes: int, batch_size: int, validate_args: bool) -> Tensor:
    metric = LEEPMetric(num_classes, probs.shape[1], from_logits=False, validate_args=validate_args).to(probs.device)
    for batch, labels in zip(probs.split(batch_size), target.split(batch_size), strict=True):
        metric.update(batch, labels)
    return metric.compute()


def compare_formulas(device: torch.device, repeats: int, batch_size: int) -> None:
    print(f"LEEP of n rows, Z source and C target classes, float32 probabilities in batches of {batch_size}; {device}")
    print(f"{'n':>7} {'Z':>5} {'C':>5} | {'NumPy':>9} {'torch':>9} {'metric':>9} {'checked':>9} {'floor':>9} | "
          f"{'NumPy/metric':>12} {'torch/metric':>12} {'metric/floor':>12} {'difference':>10}")  # fmt: skip
    for n, num_source, num_target in SIZES:
        generator = torch.Generator().manual_seed(0)
        probs = (3 * torch.randn(n, num_source, generator=generator)).softmax(dim=1)  # [n, Z]
        target = torch.randint(num_target, (n,), generator=generator)
        reference = dense_numpy(probs.numpy().astype(np.float64), target.numpy(), num_target)
        numpy_time = best_time(lambda: dense_numpy(probs.numpy(), target.numpy(), num_target), 1, torch.device("cpu"))  # noqa: B023
        probs, target = probs.to(device), target.to(device)
        torch_time = best_time(lambda: dense_torch(probs, target, num_target), repeats, device)  # noqa: B023
        bare = best_time(lambda: metric_time(probs, target, num_target, batch_size, False), repeats, device)  # noqa: B023
        checked = best_time(lambda: metric_time(probs, target, num_target, batch_size, True), repeats, device)  # noqa: B023
        floor = best_time(lambda: (probs.sum(), probs.sum()), repeats, device)  # noqa: B023
        value = float(metric_time(probs, target, num_target, batch_size, True))
        print(f"{n:>7} {num_source:>5} {num_target:>5} | {numpy_time:>8.4f}s {torch_time:>8.4f}s {bare:>8.4f}s "
              f"{checked:>8.4f}s {floor:>8.4f}s | {numpy_time / checked:>12.1f} {torch_time / checked:>12.1f} "
              f"{checked / floor:>12.1f} {abs(value - reference):>10.1e}")  # fmt: skip


def scoring_pass(device: torch.device, repeats: int) -> None:
    """A scoring pass against inference alone: a network of the size of small ImageNet models on 64 x 64 images."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.ReLU()]
    for width, following in itertools.pairwise((64, 128, 256, 512, 512)):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.Conv2d(width, following, 3, padding=1, stride=2), nn.BatchNorm2d(following), nn.ReLU()]
    source = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)).eval().to(device)
    images, labels = torch.randn(4096, 3, 64, 64), torch.randint(100, (4096,))
    loader = DataLoader(TensorDataset(images, labels), batch_size=64)

    @torch.no_grad()
    def inference() -> None:
        for batch, _ in loader:
            source(batch.to(device))

    def scoring() -> None:
        score(source, loader, 100, progress=False)

    ratios = sorted(best_time(scoring, 1, device) / best_time(inference, 1, device) for _ in range(repeats))
    print(
        f"scoring pass / inference alone, {len(images)} images, Z = 1000, C = 100, every score: "
        f"{ratios[len(ratios) // 2]:.3f} (median of {repeats} pairs, {ratios[0]:.3f} to {ratios[-1]:.3f}); "
        f"inference {best_time(inference, 1, device):.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=512)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    compare_formulas(device, arguments.repeats, arguments.batch_size)
    scoring_pass(device, arguments.repeats)


if __name__ == "__main__":
    main()
