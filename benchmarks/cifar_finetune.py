"""Full fine-tuning and training from scratch of small CIFAR-100 tasks, with the scores known beforehand.

    python benchmarks/cifar_finetune.py --data DIR --json FILE [--cache DIR] [--tasks 42]

Every task is run twice by one fixed recipe, once from the CIFAR-10 weights and once from random ones: all weights
trainable, a fresh head, 10 epochs of SGD (batches of 16, rate 0.01 annealed to 0 by a cosine, momentum 0.9, weight
decay 5e-4), random horizontal flips and shifts by up to 4 pixels. Test accuracy after each epoch, on all test images of
the task's classes; before the first epoch both are at chance level.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from cifar_data import NETWORKS, NUM_FEATURES, CifarResNet, Task, load_cache, load_images, load_network, normalise
from cifar_heads import accuracy, logistic_head
from cifar_tasks import cheap_scores
from torch import Tensor, nn
from torch.nn import functional

EPOCHS, BATCH_SIZE, LEARNING_RATE = 10, 16, 0.01


def sample_small_tasks(count: int, seed: int = 7) -> list[Task]:
    """Tasks of 5 to 20 classes and 20 to 100 images a class, both log-uniform, the networks taking turns."""
    rng = np.random.default_rng(seed)
    networks = list(NETWORKS)
    return [
        Task(
            family="finetune",
            network=networks[i % 2],
            num_classes=int(np.exp(rng.uniform(np.log(5), np.log(20.5)))),
            num_images=int(np.exp(rng.uniform(np.log(20), np.log(100.5)))),
            seed=10_000 + i,
        )
        for i in range(count)
    ]


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip and shift each image by itself, ``[m, 3, 32, 32]``."""
    num = len(images)
    flip = torch.rand(num, generator=generator) < 0.5
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
    padded = functional.pad(images, (4, 4, 4, 4))
    top, left = torch.randint(9, (2, num, 1), generator=generator)
    rows = top + torch.arange(32)  # [m, 32]
    columns = left + torch.arange(32)
    return padded[torch.arange(num).view(-1, 1, 1, 1), torch.arange(3).view(1, -1, 1, 1), rows[:, None, :, None],
                  columns[:, None, None, :]]  # fmt: skip


@torch.no_grad()
def test_accuracy(model: nn.Module, images: Tensor, target: Tensor) -> float:
    model.eval()
    hits = [(model(batch).argmax(1) == y).sum() for batch, y in zip(images.split(250), target.split(250), strict=True)]
    return (torch.stack(hits).sum() / len(target)).item()


def train(
    model: CifarResNet, images: Tensor, target: Tensor, test: Tensor, test_target: Tensor, seed: int
) -> tuple[list[float], float]:
    """Test accuracy after each epoch, and seconds spent on training alone."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
    steps = EPOCHS * -(-len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    curve, seconds = [], 0.0
    for _ in range(EPOCHS):
        start = time.perf_counter()
        model.train()
        for rows in torch.randperm(len(images), generator=generator).split(BATCH_SIZE):
            optimizer.zero_grad()
            functional.cross_entropy(model(augment(images[rows], generator)), target[rows]).backward()
            optimizer.step()
            schedule.step()
        seconds += time.perf_counter() - start
        curve.append(test_accuracy(model, test, test_target))
    return curve, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar100/ and weights/")
    parser.add_argument("--cache", type=Path, help="folder where extracted features are kept")
    parser.add_argument("--json", type=Path, required=True, help="file that gets one record a task")
    parser.add_argument("--tasks", type=int, default=42)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arrays = load_cache(arguments.data, arguments.cache)
    images = {split: load_images(arguments.data, split)[0] for split in ("train", "test")}
    records = []
    for task in sample_small_tasks(arguments.tasks):
        rows, target, test_rows, test_target = (
            torch.from_numpy(part) for part in task.rows(arrays["train_labels"], arrays["test_labels"])
        )
        features = torch.from_numpy(arrays[f"{task.network}_train_features"])[rows]
        logits = torch.from_numpy(arrays[f"{task.network}_train_logits"])[rows]
        test_features = torch.from_numpy(arrays[f"{task.network}_test_features"])[test_rows]
        head = logistic_head(features, target, task.num_classes)
        record: dict = {
            "network": task.network,
            "num_classes": task.num_classes,
            "num_images": task.num_images,
            "seed": task.seed,
            **cheap_scores(features, logits, target, task.num_classes),
            "achieved_head_only": accuracy(head, test_features, test_target),
        }
        x, x_test = normalise(images["train"][rows]), normalise(images["test"][test_rows])
        torch.manual_seed(task.seed)
        tuned = load_network(arguments.data, task.network)
        tuned.linear = nn.Linear(NUM_FEATURES, task.num_classes)
        scratch = CifarResNet(NETWORKS[task.network], task.num_classes)
        for name, model in (("finetune", tuned), ("scratch", scratch)):
            curve, seconds = train(model, x, target, x_test, test_target, task.seed)
            record[f"{name}_curve"], record[f"{name}_seconds"] = curve, seconds
        records.append(record)
        arguments.json.write_text(json.dumps(records, indent=1))
        print(
            f"{task.network} {task.num_classes:3d} classes x {task.num_images:3d}: probe "
            f"{record['probe_accuracy']:.3f}, head {record['achieved_head_only']:.3f}, fine-tuned "
            f"{record['finetune_curve'][-1]:.3f}, from scratch {record['scratch_curve'][-1]:.3f}, "
            f"{record['finetune_seconds'] + record['scratch_seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
