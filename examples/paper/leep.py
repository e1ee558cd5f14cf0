"""The experiments of the LEEP paper (Nguyen et al., ICML 2020, section 5), on your own copy of CIFAR-100.

    python examples/paper/leep.py --data ROOT --weights FILE --out DIR [--only NAME ...] [--share 0.1]
    python examples/paper/leep.py --quick --out DIR

ROOT holds torchvision's `cifar-100-python`, FILE a CIFAR-10 ResNet of github.com/akamaster/pytorch_resnet_cifar10.
Each task's result is kept as soon as it is done; the same command continues a run. `--quick` runs a few tasks on
digits that ship inside scikit-learn. DIR gets `results.jsonl`, `table.md`, figures and the records of the transfers
(`lightning-leep history DIR/history` shows them).
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from correlations import Results, write_into
from data import Images, ResNet, load_cifar100, load_digits, load_source, train_source
from report import write_report
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from training import head_accuracy, mahalanobis_accuracy, nearest_mean_accuracy, train_network, with_new_head

from lightning_leep import TransferabilityReport, score_outputs
from lightning_leep.forecast import forecast_accuracy
from lightning_leep.records import AccuracyCurve, TransferRecord, save_record


@dataclass(frozen=True)
class Experiment:
    """A family of random tasks.

    Attributes:
        section: Section of the paper.
        tasks: Number of tasks.
        classes: Smallest and largest number of classes; the number is uniform between them.
        images: Smallest and largest number of training images a class; None for all.
        flipped: Share of the training labels that are replaced by another class.
        trained: What is trained: "head", "all", and "scratch" for the reference; or the heads for few images.
        only_last: Whether fine-tuning is validated after the last epoch only.
    """

    section: str
    tasks: int
    classes: tuple[int, int]
    images: tuple[int, int] | None
    flipped: float = 0
    trained: tuple[str, ...] = ("head",)
    only_last: bool = False


EXPERIMENTS = {
    "head": Experiment("5.1", 200, (2, 100), None),
    "head_20_classes": Experiment("5.1", 60, (20, 20), None),
    "small": Experiment("5.2", 100, (5, 5), (50, 50), trained=("head", "all")),
    "imbalanced": Experiment("5.2", 100, (5, 5), (30, 60), trained=("head", "all")),
    "noisy": Experiment("5.3", 100, (5, 5), (50, 50), flipped=0.2),
    "few_shot": Experiment("5.4", 200, (5, 20), (1, 10), trained=("nearest_mean", "mahalanobis")),
    "convergence": Experiment("5.5", 40, (5, 5), (50, 50), trained=("all", "scratch")),
    "finetune": Experiment("5.1", 60, (2, 100), (20, 20), trained=("all",), only_last=True),
}
#: A few tasks for each on ten classes of digits.
QUICK = {
    name: Experiment(
        e.section,
        3 if "all" in e.trained else 12,
        (2, 8) if e.classes[1] > 20 else (5, 5),
        e.images and (min(e.images[0], 20), min(e.images[1], 20)),
        e.flipped,
        e.trained,
        e.only_last,
    )
    for name, e in EXPERIMENTS.items()
    if name != "head_20_classes"
}


@dataclass(frozen=True)
class Task:
    """Rows and labels of one random task."""

    classes: tuple[int, ...]
    train: Tensor
    target: Tensor
    test: Tensor
    test_target: Tensor

    def to(self, device: str) -> "Task":
        """The same task with its rows and labels on a device."""
        return Task(self.classes, *(part.to(device) for part in (self.train, self.target, self.test, self.test_target)))


def draw_task(images: Images, experiment: Experiment, seed: int) -> Task:
    """Draw classes, training images and flipped labels; all test images of the classes are used."""
    generator = np.random.default_rng(seed)
    low, high = experiment.classes
    num_classes = int(generator.integers(low, high + 1))
    classes = generator.choice(len(images.names), num_classes, replace=False)
    train, target, test, test_target = [], [], [], []
    train_labels, test_labels = images.train_labels.cpu().numpy(), images.test_labels.cpu().numpy()
    for k, label in enumerate(classes):
        rows = np.flatnonzero(train_labels == label)
        if experiment.images is not None:
            count = int(generator.integers(experiment.images[0], experiment.images[1] + 1))
            rows = generator.choice(rows, min(count, len(rows)), replace=False)
        held_out = np.flatnonzero(test_labels == label)
        train, target = [*train, rows], [*target, np.full(len(rows), k)]
        test, test_target = [*test, held_out], [*test_target, np.full(len(held_out), k)]
    labels = np.concatenate(target)
    flipped = generator.random(len(labels)) < experiment.flipped
    labels = np.where(flipped, (labels + generator.integers(1, num_classes, len(labels))) % num_classes, labels)
    parts = (np.concatenate(train), labels, np.concatenate(test), np.concatenate(test_target))
    return Task(tuple(classes.tolist()), *(torch.from_numpy(part) for part in parts))


class Source:
    """A frozen network and what it says of every image: logits, input of the head, and means of all blocks."""

    def __init__(self, network: ResNet, images: Images, name: str, device: str) -> None:
        self.network, self.images, self.name, self.device = network.to(device), images.to(device), name, device
        images = self.images
        self.logits, self.features, self.layers = self._outputs(images.train)
        _, self.test_features, _ = self._outputs(images.test)

    @torch.no_grad()
    def _outputs(self, images: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        found = [self.network.features(batch) for batch in images.split(250)]
        features = torch.cat([of_head for of_head, _ in found])  # [n, d]
        layers = {name: torch.cat([of_blocks[name] for _, of_blocks in found]) for name in found[0][1]}
        return self.network.linear(features), features, layers

    def score(self, task: Task, layers: bool) -> TransferabilityReport:
        """Score the training images of a task, from what the network said of them."""
        of_layers = {name: values[task.train] for name, values in self.layers.items()} if layers else None
        num_classes = len(task.classes)
        logits, features = self.logits[task.train], self.features[task.train]
        return score_outputs(logits, task.target, num_classes, features=features, layers=of_layers)


def run_task(
    source: Source, experiment: Experiment, task: Task, seed: int, epochs: int, history: Path
) -> dict[str, Any]:
    """Score one task, train as the experiment says, and save a record for each transfer."""
    report = source.score(task, layers="all" in experiment.trained)
    images, num_classes, task = source.images, len(task.classes), task.to(source.device)
    fixed = source.features[task.train], task.target, source.test_features[task.test], task.test_target
    pictures = images.train[task.train], task.target, images.test[task.test], task.test_target
    curves: dict[str, list[float]] = {}
    for trained in experiment.trained:
        if trained == "head":
            curves[trained] = [head_accuracy(*fixed, num_classes)]
        elif trained == "nearest_mean":
            curves[trained] = [nearest_mean_accuracy(*fixed)]
        elif trained == "mahalanobis":
            curves[trained] = [mahalanobis_accuracy(*fixed)]
        else:
            is_cifar = images.train.shape[1] == 3
            network, data = with_new_head(source.network, num_classes, seed), pictures
            if trained == "scratch":  # on all images of these classes, as the paper's reference
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    network = ResNet(len(source.network.layer1), num_classes, images.train.shape[1]).to(source.device)
                index = torch.full((len(images.names),), -1)
                index[list(task.classes)] = torch.arange(num_classes)
                labels = index.to(source.device)[images.train_labels]
                data = images.train[labels >= 0], labels[labels >= 0], *pictures[2:]
            curves[trained] = train_network(network, *data, epochs, seed, flip=is_cifar, only_last=experiment.only_last)
    forecasts = {}
    reference = curves.get("scratch")
    for trained in sorted({"head", "all"} & set(curves)):
        forecast = forecast_accuracy(report, trainable=trained, test_size=len(task.test))
        forecasts[trained] = {"value": forecast.value, "low": forecast.low, "high": forecast.high}
        record = TransferRecord(
            report=report,
            curve=curve_of(curves[trained], epochs if trained == "all" else 1),
            trainable=trained,
            test_size=len(task.test),
            reference=None if reference is None else curve_of(reference, epochs),
            target_name=", ".join(images.names[k] for k in task.classes[:3]) + f" ({num_classes} classes)",
            source_name=source.name,
        )
        save_record(record, history)
    return {"num_classes": num_classes, "report": report.to_dict(), "curves": curves, "forecasts": forecasts}


def curve_of(accuracy: list[float], epochs: int) -> AccuracyCurve:
    """The curve of validations up to the last of some epochs."""
    return AccuracyCurve(tuple(range(epochs - len(accuracy) + 1, epochs + 1)), tuple(accuracy))


def pending(chosen: dict[str, Experiment], results: Results, share: float) -> Iterator[tuple[str, Experiment, int]]:
    """The tasks that are still to do, those of all experiments taking turns."""
    counts = {name: max(1, round(share * experiment.tasks)) for name, experiment in chosen.items()}
    for index in range(max(counts.values())):
        for name, experiment in chosen.items():
            if index < counts[name] and f"{name}/{index}" not in results.by_key:
                yield name, experiment, index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds cifar-100-python")
    parser.add_argument("--weights", type=Path, help="weights of the CIFAR-10 network")
    parser.add_argument("--out", type=Path, required=True, help="folder for results, figures and records")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), help="experiments to run; by default all")
    parser.add_argument("--share", type=float, default=1.0, help="share of the tasks of each experiment")
    parser.add_argument("--epochs", type=int, help="epochs of fine-tuning; by default 10, quick 2")
    parser.add_argument("--ranking", type=Path, help="results of benchmarks/ranking.py, for section 5.6")
    parser.add_argument("--quick", action="store_true", help="a few tasks on digits, without --data and --weights")
    parser.add_argument("--device", default="cpu", help="where networks are trained, such as cuda")
    parser.add_argument("--write", type=Path, help="page whose results are replaced by the tables")
    arguments = parser.parse_args()
    if not arguments.quick and (arguments.data is None or arguments.weights is None):
        parser.error("--data and --weights are needed without --quick")
    torch.set_num_threads(1)  # small batches gain nothing from more
    torch.manual_seed(0)
    if arguments.quick:
        images, known = load_digits()
        network, name = train_source(*known), "digits 0 to 4"
    else:
        images, network = load_cifar100(arguments.data), load_source(arguments.weights)
        name = f"ResNet-{6 * len(network.layer1) + 2} of CIFAR-10"
    source = Source(network, images, name, arguments.device)
    experiments = QUICK if arguments.quick else EXPERIMENTS
    chosen = {name: e for name, e in experiments.items() if arguments.only is None or name in arguments.only}
    epochs = arguments.epochs or (2 if arguments.quick else 10)
    results = Results(arguments.out / "results.jsonl")
    tasks = list(pending(chosen, results, arguments.share))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        bar = progress.add_task("tasks", total=len(tasks))
        for name, experiment, index in tasks:
            seed = 1000 * list(EXPERIMENTS).index(name) + index
            progress.update(bar, description=name)
            task = draw_task(images, experiment, seed)
            result = run_task(source, experiment, task, seed, epochs, arguments.out / "history")
            results.add(
                {"key": f"{name}/{index}", "experiment": name, "epochs": epochs, **asdict(experiment), **result}
            )
            progress.advance(bar)
    text = write_report(results, arguments.out, arguments.ranking, compared=not arguments.quick)
    if arguments.write is not None:
        write_into(arguments.write, text)
    print(text)


if __name__ == "__main__":
    main()
