"""Which column orders sources best? A zoo trained on the spot, and the published accuracies of a usual zoo.

    python benchmarks/ranking.py --data DIR --out FILE [--targets 8] [--rescore] [--columns 24]
    python benchmarks/ranking.py --zoo FILE

Fifteen small networks are trained on classes of CIFAR-100 at 16 x 16 pixels: they differ in depth, width, epochs, wrong
labels, number and choice of classes; ten have the same size. Two CIFAR-10 ResNets join them. Targets are classes that
none of the fifteen has seen. On each target every source is scored on the training images, then its head is trained
anew (logistic regression) and all its layers are fine-tuned (8 epochs). For each column: the mean over targets of the
weighted Kendall tau between column and achieved accuracy, of the regret (accuracy of the best source minus that of the
first in the column), of how often the best is among the first three, and of the fidelity (correlation of the
differences between sources), each with a 90% bootstrap interval over targets. History columns of a target are made from
the other targets. FILE is continued where it stopped; networks are kept beside it. With fewer `--columns` for the
features of all layers, the small networks are projected as large ones are.

With `--zoo`, a JSON file with `models` and `accuracy` (in percent, by target), the order by the effect of each source
in the history of the other targets is compared with the accuracies.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar_data import NUM_CLASSES
from cifar_finetune import test_accuracy
from cifar_heads import accuracy, logistic_head
from cifar_sources import NETWORKS, SOURCES, Images, Recipe, load, own_accuracy, source, train
from scipy.stats import weightedtau
from torch import nn

from lightning_leep import TransferabilityReport, score, score_outputs
from lightning_leep.ranking import rank_reports
from lightning_leep.ranking.baselines import source_histories
from lightning_leep.records import AccuracyCurve, TransferRecord
from lightning_leep.records.ranking import SCORES
from lightning_leep.scoring import layer_features

SOURCE_POOL = 60  # classes that sources learn from; targets come from the other 40
SIZES = ((10, 50), (10, 50), (5, 100), (20, 30))  # classes and training images a class of the targets, in turn
KINDS = {"head": "head", "all": "all layers"}
COLUMNS = (*SCORES, "num_parameters")


def target_of(place: int) -> tuple[range, int]:
    """Classes and training images a class of a target. They are neighbours, and may overlap with another target's."""
    num_classes, num_images = SIZES[place % len(SIZES)]
    rng = np.random.default_rng(place)
    start = int(rng.integers(SOURCE_POOL, NUM_CLASSES - num_classes + 1))
    return range(start, start + num_classes), num_images


def transfer(name: str, place: int, images: Images, data: Path, folder: Path) -> dict[str, float]:
    """Accuracy that a new head and fine-tuning all layers achieve."""
    classes, num_images = target_of(place)
    x, y, x_test, y_test = images.of(classes, num_images, place)
    model = source(name, images, data, folder)
    with torch.no_grad():
        features, test_features = model.features(x), model.features(x_test)
    head = logistic_head(features, y, len(classes))
    achieved = {"head": accuracy(head, test_features, y_test)}
    torch.manual_seed(place)
    model.linear = nn.Linear(features.shape[1], len(classes))
    train(model, x, y, 8, 0.02, 16, place)
    return {**achieved, "all": test_accuracy(model, x_test, y_test)}


def scored(name: str, place: int, images: Images, data: Path, folder: Path) -> dict[str, Any]:
    classes, num_images = target_of(place)
    x, y, _, _ = images.of(classes, num_images, place)
    batches = list(zip(x.split(250), y.split(250), strict=True))
    return score(source(name, images, data, folder), batches, len(classes), progress=False).to_dict()


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Do what is not yet in the file."""
    file, folder = arguments.out, arguments.out.with_suffix("")
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    results = {"own": {}, "achieved": {}, "reports": {}, **results}
    if arguments.rescore:
        results["reports"] = {}
    images = load(arguments.data)
    names = [*SOURCES, *NETWORKS]

    def keep(part: str, key: str, make: Callable[[], Any]) -> None:
        if key not in results[part]:
            results[part][key] = make()
            file.write_text(json.dumps(results))
            print(part, key, results[part][key] if part != "reports" else "", flush=True)

    for name in names:
        keep("own", name, partial(own_accuracy, name, images, arguments.data, folder))
    for part, make in (("achieved", transfer), ("reports", scored)):
        for place in range(arguments.targets):
            for name in names:
                keep(part, f"{name}/{place}", partial(make, name, place, images, arguments.data, folder))
    return results


def record(name: str, target: str, kind: str, report: TransferabilityReport, achieved: float, m: int) -> TransferRecord:
    curve = AccuracyCurve((1,), (achieved,))
    return TransferRecord(report=report, curve=curve, trainable=kind, source_name=name, target_name=target, test_size=m)


def columns(
    place: int, kind: str, results: dict[str, Any], places: range
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Every column ``[K]`` for one target, the achieved accuracies, and which sources tie with the best forecast."""
    names = [*SOURCES, *NETWORKS]
    reports = {
        (name, t): TransferabilityReport.from_dict(results["reports"][f"{name}/{t}"]) for name in names for t in places
    }
    achieved = {key: results["achieved"]["/".join(map(str, key))][kind] for key in reports}
    size = {t: 100 * len(target_of(t)[0]) for t in places}
    history = [
        record(name, str(t), kind, report, achieved[name, t], size[t])
        for (name, t), report in reports.items()
        if t != place
    ]
    here = {name: reports[name, place] for name in names}
    alone = rank_reports(here, trainable=kind, target=str(place))
    learned = rank_reports(here, trainable=kind, history=history, target=str(place))
    past = source_histories(history, trainable=kind, target_name=str(place))
    found = {name: [getattr(report, name) for report in here.values()] for name in COLUMNS}
    found["source accuracy (of the fifteen)"] = [results["own"][name] for name in names]
    found["mean accuracy on other targets"] = [past[name].mean_accuracy for name in names]
    for title, ranking in (("forecast", alone), ("forecast with a history", learned)):
        values = {one.name: one.value(kind) for one in ranking.sources}
        found[title] = [values[name] for name in names]
    tied = {one.name: one.tied_with_best for one in alone.sources}
    arrays = {name: np.array(column, dtype=float) for name, column in found.items()}
    return arrays, np.array([achieved[name, place] for name in names]), np.array([tied[name] for name in names])


def qualities(column: np.ndarray, achieved: np.ndarray) -> list[float]:
    """Weighted tau, regret, whether the best is among the first three, fidelity, of the sources that have a value."""
    known = np.isfinite(column)
    column, achieved = column[known], achieved[known]
    order = np.argsort(-column, kind="stable")
    fidelity = np.corrcoef(column, achieved)[0, 1]  # of values, and so of their differences
    hit = achieved[order[:3]].max() == achieved.max()
    return [weightedtau(column, achieved).statistic, achieved.max() - achieved[order[0]], float(hit), fidelity]


def print_tables(results: dict[str, Any], places: range) -> None:
    """All sources, then those of one size."""
    for kind, title in KINDS.items():
        of_targets = [columns(place, kind, results, places) for place in places]
        one_size = np.array([name in SOURCES and SOURCES[name][1:3] == Recipe()[1:3] for name in [*SOURCES, *NETWORKS]])
        for group, words in ((np.ones_like(one_size), "all sources"), (one_size, "those of one size")):
            print_table(f"{title}, {words}", of_targets, group)
        tied = [first.sum() for _, _, first in of_targets]
        kept = [achieved[first].max() == achieved.max() for _, achieved, first in of_targets]
        print(f"tied with the best forecast: {np.mean(tied):.1f} sources; the best is among them: {np.mean(kept):.2f}")


def print_table(
    title: str, of_targets: Sequence[tuple[dict[str, np.ndarray], np.ndarray, Any]], group: np.ndarray
) -> None:
    spread = np.mean([np.ptp(achieved[group]) for _, achieved, _ in of_targets])
    print(f"\n{title}: {group.sum()} sources, {len(of_targets)} targets, achieved accuracies span {spread:.3f}")
    print(f"{'column':40}{'tau':>6}{'(90%)':>15}{'regret':>8}{'(90%)':>15}{'top 3':>7}{'fidelity':>10}")
    names = [
        name for name, column in of_targets[0][0].items() if len(set(column[group][np.isfinite(column[group])])) > 1
    ]
    tables = {name: np.array([qualities(found[name][group], a[group]) for found, a, _ in of_targets]) for name in names}
    draws = np.random.default_rng(0).integers(len(of_targets), size=(10_000, len(of_targets)))
    for name, table in sorted(tables.items(), key=lambda item: -item[1].mean(axis=0)[0]):
        tau, regret, hit, fidelity = table.mean(axis=0)
        ends = np.quantile(table[draws].mean(axis=1), (0.05, 0.95), axis=0)  # [2, 4]
        spans = [f"{ends[0, i]:.3f}-{ends[1, i]:.3f}" for i in (0, 1)]
        print(f"{name:40}{tau:6.3f}{spans[0]:>15}{regret:8.4f}{spans[1]:>15}{hit:7.2f}{fidelity:10.3f}")


def replay(zoo: dict[str, Any]) -> tuple[float, float]:
    """Mean weighted tau of the orders by the effect and by the mean accuracy in the history of the other targets."""
    report = score_outputs(torch.eye(2).repeat(2, 1), torch.arange(4) % 2, 2)  # nothing is read from it
    history = [
        record(name, target, "all", report, percent / 100, 1000)
        for target, row in zoo["accuracy"].items()
        for name, percent in zip(zoo["models"], row, strict=True)
    ]
    taus = []
    for target, row in zoo["accuracy"].items():
        past = source_histories(history, trainable="all", target_name=target)
        orders = zip(*((past[name].effect.effect, past[name].mean_accuracy) for name in zoo["models"]), strict=True)
        taus.append([weightedtau(order, row).statistic for order in orders])
    pooled, static = np.mean(taus, axis=0)
    return pooled, static


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cifar100/ and weights/")
    parser.add_argument("--out", type=Path, help="JSON file of the results; it is continued")
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--rescore", action="store_true", help="score all sources again")
    parser.add_argument("--columns", type=int, default=layer_features.MAX_WIDTH, help="features of all layers together")
    parser.add_argument("--zoo", type=Path, help="JSON file of published accuracies")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    layer_features.MAX_WIDTH = arguments.columns
    if arguments.zoo:
        zoo = json.loads(arguments.zoo.read_text())
        print("history alone, tau by pooled effects and by mean accuracies: {:.4f} {:.4f}".format(*replay(zoo)))
    if arguments.data and arguments.out:
        print_tables(run(arguments), range(arguments.targets))
    elif not arguments.zoo:
        parser.error("pass --data and --out, or --zoo")


if __name__ == "__main__":
    main()
