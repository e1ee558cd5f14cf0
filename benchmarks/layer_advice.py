"""How good forecasts by what is trained are, and what the advice on it costs, on random CIFAR-100 tasks.

    python benchmarks/layer_advice.py --finetune finetune.json --data DIR [--splits 20] [--write docs/layers.md]

`finetune.json` is what `cifar_finetune.py` writes. The first table compares forecasts with the accuracy after the last
epoch. Beside the mean error stands the part that sampling alone makes, of the scored rows and of the test rows, even
under a forecast that is right on average. Regret, in the second one, is the best of the accuracies of a new head, one
on the best earlier layer (trained here), the last stage and all layers minus that of the choice that a rule makes, with
a 90% interval from 2,000 bootstrap samples of the tasks. The constants of forecasts and advice were chosen on
ResNet-20; ResNet-32 checks them. `--write` puts both tables into a page.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar_data import NETWORKS, CifarResNet, Task, load_images, load_network, normalise
from cifar_heads import accuracy, logistic_head
from forecast_cifar import forecast, random_splits, sampling_error, statistics, trained
from torch import Tensor

from lightning_leep import TransferabilityReport, advise
from lightning_leep.layers.advice import MUCH_DATA, Choice
from lightning_leep.records.layers import STEM
from lightning_leep.scoring.parameters import layer_parameters

ACHIEVED = {
    "head": "achieved_head_only",
    "earlier": "achieved_earlier_head",
    "part": "last_stage_curve",
    "all": "finetune_curve",
}
HISTORY = 21
MARKS = "<!-- tables of benchmarks/layer_advice.py -->\n", "<!-- end of tables -->"

Row = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def by_network(rows: Sequence[Row]) -> dict[str, list[Row]]:
    names = sorted({row["network"] for row in rows})
    return {**{name: [row for row in rows if row["network"] == name] for name in names}, "both": list(rows)}


def forecasts(rows: Sequence[Row], splits: int) -> str:
    """Error, bias, coverage and width of the forecasts, without a history and with one."""
    size = min(HISTORY, len(rows) // 2)
    lines = []
    for what in trained(list(rows)):
        for network, of in by_network(rows).items():
            records = trained(of)[what]
            found = [statistics([forecast(record, None) for record in records], records)]
            lines.append([what, network, "none", str(len(of)), *_numbers(found), f"{sampling_error(records):.3f}"])
        found, least = [], []
        for past, rest in random_splits(len(rows), size, splits):
            history, unseen = [records[i] for i in past], [records[i] for i in rest]
            found.append(statistics([forecast(record, history) for record in unseen], unseen))
            least.append(sampling_error(unseen))
        numbers = [*_numbers(found), f"{np.mean(least):.3f}"]
        lines.append([what, "both", f"{size} others", str(len(rows) - size), *numbers])
    head = ["trained", "network", "history", "tasks", "mean error", "bias", "90% interval holds", "its width"]
    return table([*head, "error of sampling alone"], lines)


def _numbers(found: Sequence[dict[str, float]]) -> list[str]:
    mean = {name: np.mean([result[name] for result in found]) for name in found[0]}
    return [f"{mean['error']:.3f}", f"{mean['bias']:+.3f}", f"{mean['coverage']:.2f}", f"{mean['width']:.3f}"]


def report_of(row: Row) -> TransferabilityReport:
    """The report, with the parameters of each layer if it was made without."""
    report = TransferabilityReport.from_dict(row["report"])
    network = CifarResNet(NETWORKS[row["network"]])
    names = [layer.name for layer in report.layers]
    sizes = layer_parameters(network, names, dict(network.named_modules()), "linear")
    return replace(report, layers=tuple(replace(layer, num_parameters=sizes[layer.name]) for layer in report.layers))


@torch.no_grad()
def pooled(model: CifarResNet, name: str, images: Tensor) -> Tensor:
    """Output of a layer, or input of the first one, averaged over space: ``[n, 3, 32, 32] -> [n, d]``."""
    found: list[Tensor] = []
    if name == STEM:
        handle = model.layer1.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].mean(dim=(2, 3))))
    else:
        layer = model.get_submodule(name)
        handle = layer.register_forward_hook(lambda _, inputs, output: found.append(output.mean(dim=(2, 3))))
    for batch in images.split(250):
        model(normalise(batch))
    handle.remove()
    return torch.cat(found)


def train_earlier_heads(rows: Sequence[Row], data: Path) -> None:
    """Add the accuracy of a head on the earlier layer that the advice names, trained as the one on the last."""
    images, labels = zip(*(load_images(data, split) for split in ("train", "test")), strict=True)
    for row in rows:
        (choice,) = [choice for choice in advise(report_of(row)).choices if choice.reads]
        task = Task("finetune", *(row[name] for name in ("network", "num_classes", "num_images", "seed")))
        places = [torch.from_numpy(part) for part in task.rows(*(part.numpy() for part in labels))]
        model = load_network(data, task.network)
        features, test = (
            pooled(model, choice.reads, part[index]) for part, index in zip(images, places[::2], strict=True)
        )
        head = logistic_head(features, places[1], task.num_classes)
        row["achieved_earlier_head"] = accuracy(head, test, places[3])


def way(choice: Choice) -> str:
    return "earlier" if choice.reads else choice.trainable


def advised(row: Row) -> str:
    choice = advise(report_of(row)).choice
    return "head" if choice is None else way(choice)


RULES: dict[str, Callable[[Row], str]] = {
    "`advise`": advised,
    "always the head": lambda row: "head",
    "always the last stage": lambda row: "part",
    "always all layers": lambda row: "all",
    f"CS231n by size alone: all layers from {MUCH_DATA} images a class on, else the head": (
        lambda row: "all" if row["num_images"] >= MUCH_DATA else "head"
    ),
}


def regrets(rows: Sequence[Row]) -> str:
    """Regret of the advice and of simple rules, and how much of the network each trains."""
    lines = []
    for network, of in by_network(rows).items():
        costs = [{way(choice): choice for choice in advise(report_of(row)).choices} for row in of]
        for name, rule in RULES.items():
            chosen = [rule(row) for row in of]
            achieved = [{name: float(np.ravel(row[key])[-1]) for name, key in ACHIEVED.items()} for row in of]
            regret = np.array([max(a.values()) - a[c] for a, c in zip(achieved, chosen, strict=True)])
            samples = np.random.default_rng(0).integers(len(of), size=(2000, len(of)))
            low, high = np.quantile(regret[samples].mean(axis=1), (0.05, 0.95))
            picked: list[Choice] = [cost[c] for cost, c in zip(costs, chosen, strict=True)]
            shares = [np.mean([c.trained_share for c in picked]), np.mean([c.backward_share for c in picked])]
            interval, counts = f"{low:.4f} to {high:.4f}", " / ".join(str(chosen.count(c)) for c in ACHIEVED)
            lines.append(
                [name, network, f"{regret.mean():.4f}", interval, counts, *(f"{share:.0%}" for share in shares)]
            )
    ways = "head / earlier head / last stage / all"
    return table(["rule", "network", "mean regret", "90% interval", ways, "parameters", "backward pass"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finetune", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar100/ and weights/")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--write", type=Path, help="page that gets the tables")
    options = parser.parse_args()
    rows = json.loads(options.finetune.read_text())
    torch.set_num_threads(1)
    train_earlier_heads(rows, options.data)
    text = f"{forecasts(rows, options.splits)}\n{regrets(rows)}"
    print(text)
    if options.write:
        page, (begin, end) = options.write.read_text(), MARKS
        pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
        options.write.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page))


if __name__ == "__main__":
    main()
