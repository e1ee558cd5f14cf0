"""Scores from one forward pass against the accuracy of a re-trained head, on random CIFAR-100 tasks.

    python benchmarks/cifar_tasks.py --data DIR [--cache DIR] [--csv FILE] [--tasks 160]

Two networks trained on CIFAR-10 (ResNet-20 and ResNet-32), random subsets of CIFAR-100's classes and training images,
achieved = accuracy on all test images of those classes of a softmax head trained on the frozen features, by two fixed
recipes (`cifar_heads.py`). The first is the target; the second says how much of an error is a matter of recipe.

`sampling` is the mean absolute error that a perfect forecast would still show: both the test accuracy (100 images a
class) and a leave-one-out accuracy (the task's own images) are proportions, taken as binomial and independent.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cifar_data import Task, load_cache, sample_tasks
from cifar_heads import accuracy, logistic_head, sgd_head
from torch import Tensor

from lightning_leep.functional.h_score import h_score
from lightning_leep.functional.leep import conditional_probability, eep_correct, joint_probability, leep
from lightning_leep.functional.linear_probe import linear_probe
from lightning_leep.functional.log_me import log_me
from lightning_leep.functional.nce import nce

FAMILIES = {
    "uniform": "2-100 classes (uniform) x 20-200 images",
    "log_uniform": "2-100 classes (log-uniform) x 20-200 images",
    "small": "5 classes x 50 images",
}
PREDICTORS = ("eep_accuracy", "ridge_accuracy", "probe_accuracy")
RECIPES = ("achieved", "achieved_sgd")


def ridge_accuracy(features: Tensor, target: Tensor, num_classes: int) -> float:
    """Leave-one-out accuracy of ridge regression on one-hot labels: y_-i = (yhat_i - h_i y_i) / (1 - h_i) (PRESS).

    The ridge is the one of 1e-4, 1e-3, ..., 10 times the mean eigenvalue with the smallest leave-one-out squared error.
    """
    x = features.double() - features.double().mean(0)
    one_hot = torch.nn.functional.one_hot(target, num_classes).double()
    values, vectors = torch.linalg.eigh(x.T @ x)
    rotated = x @ vectors  # [n, d]
    results = []
    for ridge in (10.0**power * values.mean() for power in range(-4, 2)):
        weighted = rotated / (values + ridge)
        # The intercept is free: it fits the class frequencies and adds 1 / n to every leverage.
        leverage = (weighted * rotated).sum(1, keepdim=True) + 1 / len(x)  # [n, 1]
        fitted = weighted @ (rotated.T @ one_hot) + one_hot.mean(0)
        left_out = (fitted - leverage * one_hot) / (1 - leverage)  # [n, C]
        error = (left_out - one_hot).square().mean().item()
        results.append((error, (left_out.argmax(1) == target).double().mean().item()))
    return min(results)[1]


def cheap_scores(features: Tensor, logits: Tensor, target: Tensor, num_classes: int) -> dict[str, float]:
    """Every score that one forward pass over the task's training images gives."""
    probs = logits.softmax(1)
    conditional = conditional_probability(joint_probability(probs, target, num_classes))
    probe = linear_probe(features, target, num_classes)
    return {
        "leep": leep(logits, target, num_classes).item(),
        "leave_one_out_leep": leep(logits, target, num_classes, leave_one_out=True).item(),
        "nce": nce(logits, target, num_classes).item(),
        "h_score": h_score(features, target, num_classes).item(),
        "log_me": log_me(features, target, num_classes).item(),
        "eep_accuracy": eep_correct(probs, target, conditional).mean().item(),
        "ridge_accuracy": ridge_accuracy(features, target, num_classes),
        "probe_accuracy": probe.accuracy.item(),
        "probe_standard_error": probe.standard_error.item(),
        "probe_log_likelihood": probe.log_likelihood.item(),
        "probe_shrinkage": probe.shrinkage.item(),
        "probe_scale": probe.scale.item(),
    }


def run_task(task: Task, arrays: dict[str, np.ndarray]) -> dict[str, float | str]:
    """One row of the table: the task, its cheap scores and what the re-trained heads achieved."""
    train, target, test, test_target = (
        torch.from_numpy(rows) for rows in task.rows(arrays["train_labels"], arrays["test_labels"])
    )

    def images(name: str, rows: Tensor) -> Tensor:
        return torch.from_numpy(arrays[f"{task.network}_{name}"])[rows]

    features, logits = images("train_features", train), images("train_logits", train)
    start = time.perf_counter()
    scores = cheap_scores(features, logits, target, task.num_classes)
    seconds = time.perf_counter() - start

    def achieved(recipe: Callable[[Tensor, Tensor, int], torch.nn.Module]) -> float:
        return accuracy(recipe(features, target, task.num_classes), images("test_features", test), test_target)

    return {
        "family": task.family,
        "network": task.network,
        "num_classes": task.num_classes,
        "num_images": task.num_images,
        "seed": task.seed,
        "achieved": achieved(logistic_head),
        "achieved_sgd": achieved(sgd_head),
        **scores,
        "score_seconds": seconds,
    }


def sampling_error(rows: list[dict]) -> float:
    """Mean absolute difference of two binomial proportions of these tasks' sizes and accuracies."""
    p = np.array([row["achieved"] for row in rows])
    trials = np.array([[row["num_classes"] * 100, row["num_classes"] * row["num_images"]] for row in rows])
    return float(np.mean(np.sqrt(2 / np.pi * p * (1 - p) * (1 / trials).sum(1))))


def print_table(rows: list[dict]) -> None:
    for family, title in FAMILIES.items():
        members = [row for row in rows if row["family"] == family]
        if not members:
            continue
        truth = {recipe: np.array([row[recipe] for row in members]) for recipe in RECIPES}
        recipes = np.abs(truth["achieved"] - truth["achieved_sgd"]).mean()
        print(f"\n{title}: {len(members)} tasks; sampling {sampling_error(members):.4f}, between recipes {recipes:.4f}")
        print(f"{'predictor':20}{'MAE':>9}{'bias':>9}{'MAE, SGD':>11}{'bias, SGD':>11}{'correlation':>13}")
        for name in (*PREDICTORS, "leep", "leave_one_out_leep", "log_me", "h_score", "nce"):
            predicted = np.array([row[name] for row in members])
            line = f"{name:20}"
            for recipe, width in zip(RECIPES, (9, 11), strict=True):
                error = predicted - truth[recipe]
                cells = (f"{np.abs(error).mean():.4f}", f"{error.mean():+.4f}") if name in PREDICTORS else ("", "")
                line += "".join(f"{cell:>{width}}" for cell in cells)
            print(line + f"{np.corrcoef(predicted, truth['achieved'])[0, 1]:13.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar100/ and weights/")
    parser.add_argument("--cache", type=Path, help="folder where extracted features are kept")
    parser.add_argument("--csv", type=Path, help="write one row a task to this file")
    parser.add_argument("--tasks", type=int, default=160, help="tasks of each of the first two families")
    parser.add_argument("--small", type=int, default=120, help="tasks of 5 classes x 50 images")
    arguments = parser.parse_args()
    arrays = load_cache(arguments.data, arguments.cache)
    rows = []
    for task in sample_tasks(arguments.tasks, arguments.small):
        rows.append(run_task(task, arrays))
        if arguments.csv:
            with arguments.csv.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    print_table(rows)


if __name__ == "__main__":
    main()
