"""Why a forecast of a re-trained head is too high where images are few: the parts of the difference.

    python benchmarks/head_bias.py --data DIR [--cache DIR] [--tasks 160] [--seed 123]

Random tasks as those of `cifar_finetune.py`, on features alone: the leave-one-out probe against the same discriminant,
made from all training images, on the test images; that against heads trained by two recipes; and how often the 90%
interval holds.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from cifar_data import load_cache
from cifar_finetune import sample_small_tasks
from cifar_heads import accuracy, logistic_head, sgd_head
from forecast_cifar import TEST_IMAGES, report_of
from torch import Tensor

from lightning_leep.forecast import forecast_accuracy
from lightning_leep.functional.linear_probe import LinearProbe, linear_probe

COLUMNS = ("probe - discriminant", "discriminant - logistic", "discriminant - SGD", "logistic holds", "SGD holds")


def discriminant_accuracy(probe: LinearProbe, rows: Tensor, target: Tensor, test: Tensor, test_target: Tensor) -> float:
    """Accuracy on test images of the discriminant of all training images, with the probe's shrinkage."""
    x, num_classes, share = rows.double(), int(target.max()) + 1, float(probe.shrinkage)
    means = torch.stack([x[target == k].mean(dim=0) for k in range(num_classes)])  # [C, d]
    within = (x - means[target]).T @ (x - means[target]) / (len(x) - num_classes)  # [d, d]
    size = len(within)
    precision = torch.linalg.inv((1 - share) * within + share * within.trace() / size * torch.eye(size).double())
    scores = test.double() @ precision @ means.T - ((means @ precision) * means).sum(dim=1) / 2  # [m, C]
    return (scores.argmax(dim=1) == test_target).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar100/ and weights/")
    parser.add_argument("--cache", type=Path, help="folder where extracted features are kept")
    parser.add_argument("--tasks", type=int, default=160)
    parser.add_argument("--seed", type=int, default=123, help="7 draws the tasks of cifar_finetune.py")
    options = parser.parse_args()
    torch.set_num_threads(1)
    arrays = load_cache(options.data, options.cache)
    found: dict[str, list[list[float]]] = {}
    for task in sample_small_tasks(options.tasks, options.seed):
        index, target, test_index, test_target = (
            torch.from_numpy(part) for part in task.rows(arrays["train_labels"], arrays["test_labels"])
        )
        rows = torch.from_numpy(arrays[f"{task.network}_train_features"])[index]
        test = torch.from_numpy(arrays[f"{task.network}_test_features"])[test_index]
        probe = linear_probe(rows, target, task.num_classes)
        best = discriminant_accuracy(probe, rows, target, test, test_target)
        heads = [
            accuracy(make(rows, target, task.num_classes), test, test_target) for make in (logistic_head, sgd_head)
        ]
        unknown = dict.fromkeys(("leep", "leave_one_out_leep", "eep_accuracy"), "nan")
        report = report_of({**vars(task), **unknown, "probe_accuracy": probe.accuracy.item()})
        forecast = forecast_accuracy(report, test_size=TEST_IMAGES * task.num_classes)
        assert forecast is not None
        held = [float(forecast.low <= head <= forecast.high) for head in heads]
        found.setdefault(task.network, []).append([forecast.value - best, *(best - head for head in heads), *held])
    print(f"{'network':10}{'tasks':>6}" + "".join(f"{name:>26}" for name in COLUMNS))
    for network, values in found.items():
        print(f"{network:10}{len(values):6}" + "".join(f"{mean:26.4f}" for mean in np.mean(values, axis=0)))


if __name__ == "__main__":
    main()
