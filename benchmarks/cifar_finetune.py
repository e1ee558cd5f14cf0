"""Fine-tuning of small CIFAR-100 tasks, of all layers and of the last stage, and training from scratch.

    python benchmarks/cifar_finetune.py --data DIR --json FILE [--cache DIR] [--tasks 42] [--no-scratch]

Every task is scored with all layers, then trained by one fixed recipe: from the CIFAR-10 weights all of them and those
of the last stage (the statistics of frozen layers stay too), and from random weights. A fresh head, 10 epochs of SGD
(batches of 16, rate 0.01 annealed to 0 by a cosine, momentum 0.9, weight decay 5e-4), random horizontal flips and
shifts by up to 4 pixels. Test accuracy after each epoch, on all test images of the task's classes; before the first
epoch both are at chance level.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar_data import NETWORKS, NUM_FEATURES, CifarResNet, Task, load_cache, load_images, load_network, normalise
from cifar_heads import accuracy, logistic_head
from torch import Tensor, nn
from torch.nn import functional

from lightning_leep import score

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
    """Flip each image by itself, ``[m, 3, s, s]``, and shift it by up to s / 8 pixels."""
    num, size = len(images), images.shape[-1]
    most = size // 8
    flip = torch.rand(num, generator=generator) < 0.5
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
    padded = functional.pad(images, (most, most, most, most))
    top, left = torch.randint(2 * most + 1, (2, num, 1), generator=generator)
    rows = top + torch.arange(size)  # [m, s]
    columns = left + torch.arange(size)
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
    trainable = [p for p in model.parameters() if p.requires_grad]
    frozen = [part for part in model.children() if not any(p.requires_grad for p in part.parameters())]
    optimizer = torch.optim.SGD(trainable, lr=LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
    steps = EPOCHS * -(-len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    curve, seconds = [], 0.0
    for _ in range(EPOCHS):
        start = time.perf_counter()
        model.train()
        for part in frozen:
            part.eval()
        for rows in torch.randperm(len(images), generator=generator).split(BATCH_SIZE):
            optimizer.zero_grad()
            functional.cross_entropy(model(augment(images[rows], generator)), target[rows]).backward()
            optimizer.step()
            schedule.step()
        seconds += time.perf_counter() - start
        curve.append(test_accuracy(model, test, test_target))
    return curve, seconds


def scored(data: Path, task: Task, images: Tensor, target: Tensor) -> dict[str, Any]:
    """What a scoring pass over the task's training images says, with every layer on."""
    batches = list(zip(images.split(250), target.split(250), strict=True))
    return score(load_network(data, task.network), batches, task.num_classes, progress=False).to_dict()


def networks(data: Path, task: Task, scratch: bool) -> dict[str, CifarResNet]:
    """What is trained, by the first part of the names of its results."""
    torch.manual_seed(task.seed)
    tuned, last = load_network(data, task.network), load_network(data, task.network)
    tuned.linear = nn.Linear(NUM_FEATURES, task.num_classes)
    if not scratch:
        found = {"finetune": tuned}
    else:
        found = {"finetune": tuned, "scratch": CifarResNet(NETWORKS[task.network], task.num_classes)}
    last.linear = nn.Linear(NUM_FEATURES, task.num_classes)
    for part in (last.conv1, last.bn1, last.layer1, last.layer2):
        part.requires_grad_(False)
    return {**found, "last_stage": last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar100/ and weights/")
    parser.add_argument("--cache", type=Path, help="folder where extracted features are kept")
    parser.add_argument("--json", type=Path, required=True, help="file that gets one record a task; it is continued")
    parser.add_argument("--tasks", type=int, default=42)
    parser.add_argument("--no-scratch", action="store_true", help="leave training from scratch out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arrays = load_cache(arguments.data, arguments.cache)
    images = {split: load_images(arguments.data, split)[0] for split in ("train", "test")}
    records = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    for task in sample_small_tasks(arguments.tasks):
        record: dict[str, Any] = next((r for r in records if r["seed"] == task.seed), {})
        if record and "report" in record:
            continue
        rows, target, test_rows, test_target = (
            torch.from_numpy(part) for part in task.rows(arrays["train_labels"], arrays["test_labels"])
        )
        x, x_test = normalise(images["train"][rows]), normalise(images["test"][test_rows])
        record["report"] = scored(arguments.data, task, x, target)
        if len(record) == 1:
            features = torch.from_numpy(arrays[f"{task.network}_train_features"])[rows]
            test_features = torch.from_numpy(arrays[f"{task.network}_test_features"])[test_rows]
            head = logistic_head(features, target, task.num_classes)
            record |= {name: getattr(task, name) for name in ("network", "num_classes", "num_images", "seed")}
            record["achieved_head_only"] = accuracy(head, test_features, test_target)
            for name, model in networks(arguments.data, task, not arguments.no_scratch).items():
                curve, seconds = train(model, x, target, x_test, test_target, task.seed)
                record[f"{name}_curve"], record[f"{name}_seconds"] = curve, seconds
            records.append(record)
        arguments.json.write_text(json.dumps(records, indent=1))
        achieved = ", ".join(f"{name} {values[-1]:.3f}" for name, values in record.items() if name.endswith("_curve"))
        print(
            f"{task.network} {task.num_classes:3d} classes x {task.num_images:3d}: "
            f"probe {record['report']['linear_probe_accuracy']:.3f}, of all layers "
            f"{record['report']['multi_layer_probe_accuracy']:.3f}, head {record['achieved_head_only']:.3f}, "
            f"{achieved}",
            flush=True,
        )


if __name__ == "__main__":
    main()
