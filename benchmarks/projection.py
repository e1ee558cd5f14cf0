"""What the projection of wide layers costs the forecasts of fine-tuning all layers.

    python benchmarks/projection.py --finetune finetune.json --data DIR [--widths 1024 96 64 40]

`finetune.json` is what `cifar_finetune.py` writes. Its tasks are scored again with fewer columns for all layers
together, so that the layers of a CIFAR ResNet (352 and 592 features) are projected as those of a large network are
under the usual 1,024. Error, bias and coverage are those of the forecast without a history, against the accuracy after
the last epoch. The share of the head's features and the width of the interval were chosen on ResNet-20; ResNet-32
checks them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from cifar_data import NETWORKS, Task, load_images, load_network, normalise

from lightning_leep import score
from lightning_leep.forecast import forecast_accuracy
from lightning_leep.scoring import layer_features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finetune", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 96, 64, 40])
    arguments = parser.parse_args()
    rows = json.loads(arguments.finetune.read_text())
    images, labels = load_images(arguments.data, "train")
    test_labels = load_images(arguments.data, "test")[1]
    networks = {name: load_network(arguments.data, name) for name in NETWORKS}
    print("| columns | network | tasks | mean error | bias | 90% interval holds | its width |\n" + "|---" * 7 + "|")
    for width in arguments.widths:
        layer_features.MAX_WIDTH = width
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in networks}
        for row in rows:
            task = Task("finetune", *(row[name] for name in ("network", "num_classes", "num_images", "seed")))
            places, target, *_ = map(torch.from_numpy, task.rows(labels.numpy(), test_labels.numpy()))
            batches = list(zip(normalise(images[places]).split(250), target.split(250), strict=True))
            report = score(networks[task.network], batches, task.num_classes, num_permutations=0, progress=False)
            forecast = forecast_accuracy(report, trainable="all", test_size=100 * task.num_classes)
            assert forecast is not None  # there is a probe
            achieved = row["finetune_curve"][-1]
            is_inside = forecast.low <= achieved <= forecast.high
            found[task.network].append((forecast.value - achieved, is_inside, forecast.high - forecast.low))
        for name, values in found.items():
            errors, inside, widths = np.array(values).T
            print(
                f"| {width} | {name} | {len(errors)} | {abs(errors).mean():.3f} | {errors.mean():+.3f} | "
                f"{inside.mean():.2f} | {widths.mean():.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
