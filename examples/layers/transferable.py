"""How transferable are the layers of a network? (Yosinski et al., NeurIPS 2014), on two halves of CIFAR-100.

    python examples/layers/transferable.py --data ROOT --out DIR [--seeds 3] [--split random]
    python examples/layers/transferable.py --quick --out DIR

ROOT holds torchvision's `cifar-100-python`. Classes are divided into A and B: at random, or man-made against natural.
For each n the first n layers of a new network for B are those of a network trained on A (AnB) or on B (BnB), and are
kept as they are, or are trained further (AnB+, BnB+); or they have random weights (RnB). Each result is kept as soon
as it is there; the same command continues a run. DIR gets `results.jsonl`, `summary.json`, `table.md`, `layers.png`.
"""

import argparse
import logging
import sys
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from layers_report import write_report
from network import LAYERS, make_network, train_from
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lightning_leep import score

sys.path.append(str(Path(__file__).parents[1] / "paper"))
from correlations import Results, write_into
from data import Images, load_cifar100, load_digits

MAN_MADE = {
    *("bottle", "bowl", "can", "cup", "plate", "clock", "keyboard", "lamp", "telephone", "television"),
    *("bed", "chair", "couch", "table", "wardrobe", "bridge", "castle", "house", "road", "skyscraper"),
    *("bicycle", "bus", "motorcycle", "pickup_truck", "train", "lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
KINDS = ("AnB", "BnB", "RnB", "AnB+", "BnB+")


def halves(names: tuple[str, ...], split: str, seed: int) -> tuple[list[int], list[int]]:
    """Classes of A and of B."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(names)).tolist()
    if split == "random":
        return order[: len(names) // 2], order[len(names) // 2 :]
    made = [k for k in order if names[k] in MAN_MADE]
    return made, [k for k in order if names[k] not in MAN_MADE][: len(made)]


def task(images: Images, classes: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images of some classes, with labels from 0 on."""
    index = torch.full((len(images.names),), -1)
    index[classes] = torch.arange(len(classes))
    train, test = index[images.train_labels], index[images.test_labels]
    return images.train[train >= 0], train[train >= 0], images.test[test >= 0], test[test >= 0]


def halved(images: Images) -> Images:
    """The same images with half as many pixels on a side: three seeds of both divisions take an hour of two cores."""
    return replace(images, train=avg_pool2d(images.train, 2), test=avg_pool2d(images.test, 2))


class Study:
    """One division of the classes with one seed: networks of A and B, and what came of each cut."""

    def __init__(self, images: Images, split: str, seed: int, epochs: int, folder: Path, accelerator: str) -> None:
        self.split, self.seed, self.epochs, self.accelerator = split, seed, epochs, accelerator
        self.tasks = dict(zip("AB", (task(images, half) for half in halves(images.names, split, seed)), strict=True))
        self.shape = images.train.shape[1], images.train.shape[2]
        self.folder = folder

    def network(self, num_classes: int, seed: int) -> nn.Sequential:
        """A new network."""
        return make_network(num_classes, *self.shape, seed=seed)

    def base(self, half: str) -> nn.Sequential:
        """The network of one half; it is trained once and kept."""
        network = self.network(int(self.tasks[half][1].max()) + 1, seed=10 * self.seed + "AB".index(half))
        file = self.folder / f"{self.split}-{self.seed}-{half}.pt"
        if file.exists():
            network.load_state_dict(torch.load(file, weights_only=True))
        else:
            train_from(network, 0, self.tasks[half], self.epochs, self.seed, self.accelerator)
            torch.save(network.cpu().state_dict(), file)
        return network.cpu()

    def accuracy(self, kind: str, cut: int) -> float:
        """Test accuracy on B with the first ``cut`` layers of another network."""
        network = self.network(int(self.tasks["B"][1].max()) + 1, seed=1000 + 10 * self.seed + cut)
        if kind[0] in "AB":
            network[:cut].load_state_dict(self.base(kind[0])[:cut].state_dict())
        frozen = 0 if kind.endswith("+") else cut
        return train_from(network, frozen, self.tasks["B"], self.epochs, 100 + self.seed, self.accelerator)

    def probes(self, half: str) -> list[float | None]:
        """Probe accuracy of each layer of one half's network on test images of B, which neither network has seen."""
        *_, images, labels = self.tasks["B"]
        batches = list(zip(images.split(250), labels.split(250), strict=True))
        report = score(self.base(half), batches, int(labels.max()) + 1, layers=LAYERS, progress=False)
        found = {layer.name: layer.probe_accuracy for layer in report.layers}
        return [found.get(name) for name in LAYERS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds cifar-100-python")
    parser.add_argument("--out", type=Path, required=True, help="folder for results, figures and networks")
    parser.add_argument("--split", nargs="+", choices=("random", "man-made"), default=["random", "man-made"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="by default 15, quick 6")
    parser.add_argument("--curve", type=Path, help="JSON of the paper's curve, to be drawn beside ours")
    parser.add_argument("--quick", action="store_true", help="digits in place of CIFAR-100, three cuts")
    parser.add_argument("--accelerator", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--write", type=Path, help="page whose results are replaced by the tables")
    arguments = parser.parse_args()
    if not arguments.quick and arguments.data is None:
        parser.error("--data is needed without --quick")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers.*|.*treespec.*|.*in eval mode.*")
    torch.set_num_threads(1)
    images = load_digits()[0] if arguments.quick else halved(load_cifar100(arguments.data))
    splits, seeds, cuts = arguments.split, range(arguments.seeds), range(1, len(LAYERS) + 1)
    if arguments.quick:
        splits, seeds, cuts = ["random"], range(1), (1, 4, 7)
    epochs = arguments.epochs or (6 if arguments.quick else 15)
    results = Results(arguments.out / "results.jsonl")
    # The first seed of each split comes first, so that an interrupted run has all cuts of it.
    runs = [(seed, split, kind, n) for seed in seeds for split in splits for n in cuts for kind in KINDS]
    runs = [(seed, split, kind, 0) for seed in seeds for split in splits for kind in ("base", "scores")] + runs
    runs = sorted(runs, key=lambda run: run[0])
    todo = [run for run in runs if f"{run[1]}/{run[0]}/{run[2]}/{run[3]}" not in results.by_key]

    @cache
    def study(split: str, seed: int) -> Study:
        return Study(images, split, seed, epochs, arguments.out, arguments.accelerator)

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        bar = progress.add_task("networks", total=len(todo))
        for seed, split, kind, n in todo:
            progress.update(bar, description=f"{split} {seed} {kind} {n}")
            result = {"key": f"{split}/{seed}/{kind}/{n}", "experiment": split, "seed": seed, "kind": kind, "n": n}
            if kind == "scores":
                result |= {f"probe_{half}": study(split, seed).probes(half) for half in "AB"}
            elif kind == "base":
                result["accuracy"] = study(split, seed).accuracy("R+", 0)  # as the others, not the kept network
            else:
                result["accuracy"] = study(split, seed).accuracy(kind, n)
            results.add(result | {"epochs": epochs})
            progress.advance(bar)
    text = write_report(results, arguments.out, arguments.curve)
    if arguments.write is not None:
        write_into(arguments.write, text)
    print(text)


if __name__ == "__main__":
    main()
