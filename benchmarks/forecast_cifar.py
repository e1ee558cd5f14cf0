"""How good the forecasts are on random CIFAR-100 tasks: error, coverage and width, with and without a history.

    python benchmarks/forecast_cifar.py --tasks tasks.csv [--finetune finetune.json] [--splits 20] [--history 40]

`tasks.csv` is what `cifar_tasks.py --csv` writes, `finetune.json` what `cifar_finetune.py` writes. Every split draws a
history at random and forecasts all other tasks of the family; without a history all tasks are forecast once. `sampling`
is the error that a perfect forecast would still show (see `cifar_tasks.py`).
"""

import argparse
import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_leep import TransferabilityReport
from lightning_leep.forecast import (
    AccuracyForecast,
    forecast_accuracy,
    forecast_convergence,
    update_forecast,
)
from lightning_leep.records import AccuracyCurve, TransferRecord

FAMILIES = {
    "uniform": "2-100 classes (uniform) x 20-200 images",
    "log_uniform": "2-100 classes (log-uniform) x 20-200 images",
    "small": "5 classes x 50 images",
}
RECIPES = {"achieved": "logistic head", "achieved_sgd": "SGD head"}
TEST_IMAGES = 100  # of each class
COLUMNS = f"{'forecast':26}{'tasks':>6}{'MAE':>8}{'bias':>9}{'coverage':>10}{'of splits':>13}{'width':>8}{'outside':>9}"


def report_of(row: dict[str, Any]) -> TransferabilityReport:
    """The report that scoring the task's images gives, from the scores in the table."""
    if "report" in row:
        return TransferabilityReport.from_dict(row["report"])
    num_classes, num_images = int(row["num_classes"]), int(row["num_images"])
    return TransferabilityReport(
        num_samples=num_classes * num_images,
        num_target_classes=num_classes,
        num_source_classes=10,
        class_counts=(num_images,) * num_classes,
        leep=float(row["leep"]),
        leep_standard_error=math.nan,
        leave_one_out_leep=float(row["leave_one_out_leep"]),
        leave_one_out_leep_standard_error=math.nan,
        label_entropy=math.log(num_classes),
        eep_accuracy=float(row["eep_accuracy"]),
        eep_accuracy_standard_error=math.nan,
        seconds=math.nan,
        samples_per_second=math.nan,
        linear_probe_accuracy=float(row["probe_accuracy"]),
    )


def record_of(row: dict[str, Any], curve: Sequence[float], strategy: str, **values: Any) -> TransferRecord:
    """The task as an earlier transfer with its accuracy after 1, 2, ... epochs."""
    return TransferRecord(
        report=report_of(row),
        curve=AccuracyCurve(tuple(range(1, len(curve) + 1)), tuple(curve)),
        trainable=strategy,
        test_size=TEST_IMAGES * int(row["num_classes"]),
        source_name=row["network"],
        **values,
    )


def forecast(record: TransferRecord, history: Sequence[TransferRecord] | None) -> AccuracyForecast:
    result = forecast_accuracy(
        record.report,
        history,
        trainable=record.trainable,
        trained_from=record.trained_from,
        test_size=record.test_size,
    )
    assert result is not None
    return result


def statistics(forecasts: Sequence[AccuracyForecast], records: Sequence[TransferRecord]) -> dict[str, float]:
    achieved = np.array([record.achieved for record in records])
    low, value, high = np.array([(f.low, f.value, f.high) for f in forecasts]).T
    return {
        "error": float(np.abs(value - achieved).mean()),
        "bias": float((value - achieved).mean()),
        "coverage": float(((low <= achieved) & (achieved <= high)).mean()),
        "width": float((high - low).mean()),
        "outside": float(np.mean([f.out_of_range for f in forecasts])),
    }


def print_row(title: str, number: int, results: list[dict[str, float]]) -> None:
    mean = {name: np.mean([result[name] for result in results]) for name in results[0]}
    coverages = [result["coverage"] for result in results]
    span = f"{min(coverages):.2f}-{max(coverages):.2f}" if len(results) > 1 else ""
    print(
        f"{title:26}{number:6}{mean['error']:8.4f}{mean['bias']:+9.4f}{mean['coverage']:10.3f}{span:>13}"
        f"{mean['width']:8.3f}{mean['outside']:9.3f}"
    )


def random_splits(number: int, size: int, splits: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices of history and of the rest, for each split."""
    orders = (np.random.default_rng(seed).permutation(number) for seed in range(splits))
    return [(order[:size], order[size:]) for order in orders]


def sampling_error(records: Sequence[TransferRecord]) -> float:
    p = np.array([record.achieved for record in records])
    inverse = np.array([1 / (record.test_size or math.inf) + 1 / record.report.num_samples for record in records])
    return float(np.sqrt(2 / np.pi * p * (1 - p) * inverse).mean())


def print_accuracy(title: str, records: list[TransferRecord], sizes: Sequence[int], splits: int) -> None:
    print(f"\n{title}: sampling {sampling_error(records):.4f}\n{COLUMNS}")
    print_row("no history", len(records), [statistics([forecast(record, None) for record in records], records)])
    for size in sizes:
        results = []
        for past, rest in random_splits(len(records), size, splits):
            history, unseen = [records[i] for i in past], [records[i] for i in rest]
            results.append(statistics([forecast(record, history) for record in unseen], unseen))
        print_row(f"history of {size}", len(records) - size, results)


def trained(rows: list[dict[str, Any]]) -> dict[str, list[TransferRecord]]:
    """The tasks as transfers of each kind, achieved being the accuracy after the last epoch."""
    return {
        "all layers": [record_of(row, row["finetune_curve"][-1:], "all") for row in rows],
        "the last stage": [record_of(row, row["last_stage_curve"][-1:], "part", trained_from="layer3") for row in rows],
        "the head": [record_of(row, [row["achieved_head_only"]], "head") for row in rows],
    }


def print_convergence(records: list[TransferRecord]) -> None:
    """Each task forecast from all others."""
    others = [[other for other in records if other is not record] for record in records]
    forecasts = [forecast_convergence(r.report, h, trainable=r.trainable) for r, h in zip(records, others, strict=True)]
    held, errors = [], {0.5: [], 0.9: [], 0.99: []}
    for record, history, result in zip(records, others, forecasts, strict=True):
        assert result is not None
        relative = np.array(record.curve.accuracy) / record.curve.best
        held.append((np.array(result.relative.low) <= relative) & (relative <= np.array(result.relative.high)))
        for fraction, pairs in errors.items():
            actual = record.curve.epochs_to(fraction)
            mean = np.mean([other.curve.epochs_to(fraction) for other in history])
            predicted = getattr(result, f"epochs_to_{100 * fraction:.0f}_percent")
            pairs.append((abs(predicted - actual), abs(mean - actual), actual))
    print(
        f"\nconvergence, each of {len(records)} from the others: 80% band holds {np.mean(held):.3f} of the validations"
    )
    for fraction, pairs in errors.items():
        error, baseline, actual = np.mean(pairs, axis=0)
        print(
            f"  epochs to {fraction:.0%} of the best: {actual:.2f} on average, mean abs. error {error:.2f} "
            f"(the history's mean: {baseline:.2f})"
        )


def print_running(records: list[TransferRecord], size: int, splits: int) -> None:
    """The forecast after k of the epochs, from histories of ``size``."""
    epochs = len(records[0].curve)
    print(f"\nduring training, history of {size}")
    print(f"{'epochs':>6}{'MAE':>8}{'coverage':>10}{'width':>8}{'ETA said':>10}{'MAE':>8}")
    excluded = []
    results: dict[int, list[tuple[float, ...]]] = {k: [] for k in range(epochs)}
    for past, rest in random_splits(len(records), size, splits):
        history = [records[i] for i in past]
        for record in (records[i] for i in rest):
            before = forecast(record, history)
            convergence = forecast_convergence(record.report, history, trainable=record.trainable)
            best, arrived = record.curve.best, record.curve.epochs_to(0.99)
            too_low = []
            for k, rows in results.items():
                curve = AccuracyCurve(record.curve.epochs[:k], record.curve.accuracy[:k])
                now = update_forecast(
                    before, curve, max_epochs=epochs, convergence=convergence, test_size=record.test_size
                )
                eta = math.nan if now.eta_epochs is None else abs(now.eta_epochs - max(0.0, (arrived or 0.0) - k))
                too_low.append(now.high < best)
                rows.append((abs(now.value - best), now.low <= best <= now.high, now.high - now.low, eta))
            excluded.append(any(all(too_low[k : k + 4]) for k in range(1, epochs - 3)))
    for k, rows in results.items():
        error, held, width, eta = np.array(rows, dtype=float).T
        said = np.isfinite(eta)
        eta_error = f"{eta[said].mean():8.2f}" if said.any() else ""
        print(f"{k:6}{error.mean():8.4f}{held.mean():10.3f}{width.mean():8.3f}{said.mean():10.2f}{eta_error}")
    print(f"runs whose best accuracy was called hopeless at four validations in a row: {np.mean(excluded):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, help="CSV of re-trained heads")
    parser.add_argument("--finetune", type=Path, help="JSON of fine-tuned networks")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--history", type=int, default=40)
    options = parser.parse_args()
    if options.tasks:
        with options.tasks.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for recipe, name in RECIPES.items():
            for family, title in FAMILIES.items():
                records = [record_of(r, [float(r[recipe])], "head") for r in rows if r["family"] == family]
                if len(records) > options.history:
                    print_accuracy(f"{name}, {title}", records, (options.history,), options.splits)
    if options.finetune:
        rows = json.loads(options.finetune.read_text())
        records = []
        for row in rows:
            scratch = record_of(row, row["scratch_curve"], "scratch").curve if "scratch_curve" in row else None
            records.append(record_of(row, row["finetune_curve"], "all", reference=scratch))
        half = len(records) // 2
        for network in sorted({row["network"] for row in rows}):
            of = [row for row in rows if row["network"] == network]
            for title, made in trained(of).items():
                print_accuracy(f"{title}, {network}", made, (), options.splits)
        for title, made in trained(rows).items():
            print_accuracy(f"{title}, all networks", made, (half,), options.splits)
        print_convergence(records)
        print_running(records, half, min(options.splits, 5))


if __name__ == "__main__":
    main()
