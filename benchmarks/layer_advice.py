"""How much accuracy the advice on what to train costs, beside simple rules, on random CIFAR-100 tasks.

    python benchmarks/layer_advice.py --finetune finetune.json

`finetune.json` is what `cifar_finetune.py` writes. Regret is the best of the achieved accuracies (of a new head, the
last stage and all layers) less that of the choice that a rule makes, with a 90% interval from 2,000 bootstrap samples
of the tasks. The constants of `advise` were chosen on ResNet-20; ResNet-32 checks them.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from lightning_leep import TransferabilityReport
from lightning_leep.layers.advice import MANY_IMAGES, advise

ACHIEVED = {"head": "achieved_head_only", "part": "last_stage_curve", "all": "finetune_curve"}


def achieved(row: dict[str, Any]) -> dict[str, float]:
    """Accuracy of each way to train, after the last epoch."""
    return {name: float(np.ravel(row[key])[-1]) for name, key in ACHIEVED.items()}


def advised(row: dict[str, Any]) -> str:
    advice = advise(TransferabilityReport.from_dict(row["report"]))
    return "head" if advice.recommended is None else advice.choices[advice.recommended].trainable


RULES = {
    "advise": advised,
    "always the head": lambda row: "head",
    "always the last stage": lambda row: "part",
    "always all layers": lambda row: "all",
    "CS231n, by size alone": lambda row: "all" if row["num_images"] >= MANY_IMAGES else "head",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finetune", type=Path, required=True)
    rows = json.loads(parser.parse_args().finetune.read_text())
    rng = np.random.default_rng(0)
    for network in (*sorted({row["network"] for row in rows}), "all networks"):
        of = [row for row in rows if network in (row["network"], "all networks")]
        print(f"\n{network}, {len(of)} tasks\n{'rule':24}{'regret':>8}{'90% interval':>18}{'head/part/all':>16}")
        for name, rule in RULES.items():
            chosen = [rule(row) for row in of]
            regret = np.array(
                [max(achieved(row).values()) - achieved(row)[c] for row, c in zip(of, chosen, strict=True)]
            )
            means = regret[rng.integers(len(of), size=(2000, len(of)))].mean(axis=1)
            low, high = np.quantile(means, (0.05, 0.95))
            counts = "/".join(str(chosen.count(c)) for c in ACHIEVED)
            print(f"{name:24}{regret.mean():8.4f}{f'{low:.4f} to {high:.4f}':>18}{counts:>16}")


if __name__ == "__main__":
    main()
