"""The tables and figures of the LEEP paper's experiments, made from ``results.jsonl`` and never typed."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from correlations import (
    Results,
    correlation,
    finite,
    gain,
    interval,
    markdown,
    number,
    pearson,
    resampled,
    without,
    write_events,
)
from scipy import stats

from lightning_leep import TransferabilityReport
from lightning_leep.forecast import LEEPLevel, forecast_accuracy, forecast_convergence, leep_levels
from lightning_leep.records import AccuracyCurve, History, TransferRecord

#: Columns of the table, and where a score is in a report. The forecast is of what is trained.
SCORES = {
    "LEEP": "leep",
    "leave-one-out LEEP": "leave_one_out_leep",
    "NCE": "nce",
    "H-score": "h_score_unshrunk",
    "H-score, shrunk": "h_score",
    "LogME": "log_me",
    "kNN": "nearest_neighbour_accuracy",
    "linear probe": "linear_probe_accuracy",
    "multi-layer probe": "multi_layer_probe_accuracy",
}
#: Pearson's r in the paper, by experiment and what is trained, as quoted by a secondary source, whose method column had
#: to be inferred.
PAPER = {
    ("head", "head"): {"LEEP": 0.982, "NCE": 0.982, "H-score": 0.831},
    ("finetune", "all"): {"LEEP": 0.967, "NCE": 0.967, "H-score": 0.787},
    ("small", "head"): {"LEEP": 0.744, "NCE": 0.743, "H-score": 0.877},
    ("small", "all"): {"LEEP": 0.396, "NCE": 0.401, "H-score": 0.737},
    ("imbalanced", "head"): {"LEEP": 0.862, "NCE": 0.847, "H-score": 0.787},
    ("imbalanced", "all"): {"LEEP": 0.597, "NCE": 0.582, "H-score": 0.758},
    ("few_shot", "mahalanobis"): {"LEEP": 0.591},
}
COLUMNS = (
    *("experiment", "trained", "score", "paper", "here", "95% interval", "p", "n"),
    *("given C", "95% interval of r minus LEEP's", "command"),
)


def column(results: list[dict[str, Any]], score: str, trained: str) -> list[float | None]:
    """One score of each task."""
    if score == "forecast":
        return [result["forecasts"].get(trained, {}).get("value") for result in results]
    return [result["report"].get(SCORES[score]) for result in results]


def correlations(results: Results) -> list[dict[str, Any]]:
    """One row for each experiment, what was trained, and score."""
    rows = []
    for experiment in dict.fromkeys(result["experiment"] for result in results.by_key.values()):
        tasks = results.of(experiment)
        for trained in sorted(set(tasks[0]["curves"]) - {"scratch"}):
            achieved = [task["curves"][trained][-1] for task in tasks]
            log_classes = np.log([task["num_classes"] for task in tasks])
            leep = column(tasks, "LEEP", trained)
            for score in (*SCORES, "forecast"):
                values = column(tasks, score, trained)
                x, y, c = finite(values, achieved, log_classes)
                if len(x) < 3:
                    continue
                given = float(pearson(without(x, c), without(y, c)))
                row = {"experiment": experiment, "section": tasks[0]["section"], "trained": trained, "score": score}
                row |= {"paper": PAPER.get((experiment, trained), {}).get(score), "given_classes": given}
                rows.append(row | correlation(values, achieved) | {"minus_leep": gain(values, leep, achieved)})
    return rows


def forecasts(results: Results) -> list[dict[str, Any]]:
    """Error, bias and coverage of the forecasts that were made before training, without a history."""
    rows = []
    for experiment in dict.fromkeys(result["experiment"] for result in results.by_key.values()):
        tasks = results.of(experiment)
        for trained in tasks[0]["forecasts"]:
            made = [task["forecasts"][trained] for task in tasks]
            achieved = np.array([task["curves"][trained][-1] for task in tasks])
            errors = np.array([forecast["value"] for forecast in made]) - achieved
            inside = [f["low"] <= a <= f["high"] for f, a in zip(made, achieved, strict=True)]
            row = {"experiment": experiment, "trained": trained, "n": len(tasks), "bias": float(errors.mean())}
            low, high = resampled((np.abs(errors),), partial(np.mean, axis=-1))
            row |= {"error": float(np.abs(errors).mean()), "low": low, "high": high, "inside": int(sum(inside))}
            rows.append(row)
    return rows


def convergence(results: Results, out: Path) -> dict[str, Any] | None:
    """How LEEP goes with the epoch that passes the reference, and how well each run was foretold from the others."""
    tasks = [task for task in results.of("convergence") if "scratch" in task["curves"]]
    if len(tasks) < 3:
        return None
    records = []
    for task in tasks:
        achieved, report = task["curves"]["all"], TransferabilityReport.from_dict(task["report"])
        curve = AccuracyCurve(tuple(range(1, len(achieved) + 1)), tuple(achieved))
        # As in the paper: the accuracy that the network from random weights ends with, on all images of the classes.
        records.append(
            TransferRecord(report=report, curve=curve, trainable="all", reference=task["curves"]["scratch"][-1])
        )
    last = len(achieved)
    passed = [record.curve.epoch_reaching(record.reference) or last + 1 for record in records]
    leep = [record.report.leep for record in records]
    rank = stats.spearmanr(leep, passed)
    low, high = resampled((np.array(leep), np.array(passed, float)), spearman)
    errors, inside = [], []
    for k, record in enumerate(records):
        others = History(other for i, other in enumerate(records) if i != k)
        forecast = forecast_convergence(record.report, others, trainable="all")
        if forecast is not None and (epochs_to := record.curve.epochs_to(0.9)) is not None:
            errors.append(abs(forecast.epochs_to_90_percent - epochs_to))
            band = forecast.relative
            share = [a / record.curve.best for a in record.curve.accuracy]
            inside += [low_ <= s <= high_ for s, low_, high_ in zip(share, band.low, band.high, strict=False)]
    draw_levels(leep_levels(records), out / "convergence.png")
    return {
        "n": len(tasks),
        "never_passed": sum(epoch > last for epoch in passed),
        "spearman": float(rank.statistic),
        "p": float(rank.pvalue),
        "low": low,
        "high": high,
        "epochs_to_90_percent_error": float(np.mean(errors)) if errors else None,
        "inside_80_percent_band": float(np.mean(inside)) if inside else None,
    }


def draw_levels(levels: tuple[LEEPLevel, ...], path: Path) -> None:
    """Accuracy minus that of the reference after each epoch, averaged within levels of LEEP."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="#888888", linewidth=0.8, linestyle="--")
    for level in levels:
        if level.difference is not None:
            mean = [100 * value for value in level.difference.mean]
            color = colormaps["plasma"](0.85 - 0.17 * (level.level - 1))
            label = f"LEEP {level.low:.2f} to {level.high:.2f} ({len(level.records)} tasks)"
            axes.plot(level.difference.epochs, mean, "o-", markersize=3, color=color, label=label)
    axes.set(xlabel="epochs of fine-tuning", ylabel="accuracy minus reference, points")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation along the last axis."""
    return pearson(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))


def scatter(results: Results, out: Path) -> None:
    """Achieved accuracy against LEEP, as in the paper's first figure, and against the forecast; one point a task."""
    from matplotlib.figure import Figure

    titles = {"head": "2 to 100 classes", "head_20_classes": "20 classes", "small": "5 classes x 50 images"}
    shown = [name for name in (*titles, "finetune") if results.of(name)]
    if not shown:
        return
    figure = Figure(figsize=(3.2 * len(shown), 5.6), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False)
    for (above, below), name in zip(panels.T, shown, strict=True):
        tasks = results.of(name)
        trained = "all" if name == "finetune" else "head"
        achieved = [100 * task["curves"][trained][-1] for task in tasks]
        forecast = [100 * task["forecasts"][trained]["value"] for task in tasks]
        above.plot([task["report"]["leep"] for task in tasks], achieved, ".", color="#3b6fb6", alpha=0.7)
        below.plot(forecast, achieved, ".", color="#3b6fb6", alpha=0.7)
        ends = [min(*forecast, *achieved), max(*forecast, *achieved)]
        below.plot(ends, ends, "--", color="#888888", linewidth=0.8)
        above.set(title=titles.get(name, "fine-tuning"), xlabel="LEEP (0 is perfect)")
        below.set(xlabel="forecast before training, %")
    for row in panels:
        row[0].set_ylabel("achieved test accuracy, %")
    figure.savefig(out / "leep.png", dpi=120)


def sources(ranking: Path) -> list[dict[str, Any]]:
    """Section 5.6: accuracy that the source with the highest score loses to the best one, on average over targets.

    Args:
        ranking: What ``benchmarks/ranking.py`` writes: ``achieved`` and ``reports`` by "source/target".
    """
    stored = json.loads(ranking.read_text())
    targets: dict[str, list[str]] = {}
    for key in stored["achieved"]:
        targets.setdefault(key.rpartition("/")[2], []).append(key)
    reports = {key: TransferabilityReport.from_dict(values) for key, values in stored["reports"].items()}
    rows = []
    for score in ("LEEP", "forecast"):
        for trained in ("head", "all"):
            lost, hits = [], 0
            for keys in targets.values():
                achieved = {key: stored["achieved"][key][trained] for key in keys}
                if score == "LEEP":
                    values = {key: reports[key].leep for key in keys}
                else:
                    values = {key: forecast_accuracy(reports[key], trainable=trained).value for key in keys}
                chosen, best = max(keys, key=values.__getitem__), max(keys, key=achieved.__getitem__)
                lost.append(achieved[best] - achieved[chosen])
                hits += chosen == best
            low, high = resampled((np.array(lost),), partial(np.mean, axis=-1))
            row = {"score": score, "trained": trained, "n": len(lost), "regret": float(np.mean(lost))}
            rows.append(row | {"low": low, "high": high, "best": hits})
    return rows


def write_report(results: Results, out: Path, ranking: Path | None = None, compared: bool = True) -> str:
    """Write ``summary.json``, ``table.md``, the figures and TensorBoard's events, a step a task; return the tables.

    Args:
        results: Results of the tasks.
        out: Folder to write into.
        ranking: Results of ``benchmarks/ranking.py``; None leaves out section 5.6.
        compared: Whether the paper's figures stand beside ours; other data have none.
    """
    summary: dict[str, Any] = {"correlations": correlations(results), "forecasts": forecasts(results)}
    summary["convergence"] = convergence(results, out)
    summary["sources"] = [] if ranking is None else sources(ranking)
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    scatter(results, out)
    rows = [
        (
            f"{row['section']} {row['experiment']}",
            row["trained"],
            row["score"],
            number(row["paper"] if compared else None),
            number(row["r"]),
            interval(row["low"], row["high"]),
            f"{row['p']:.0e}",
            str(row["n"]),
            number(row["given_classes"]),
            interval(row["minus_leep"]["low"], row["minus_leep"]["high"]) if row["score"] != "LEEP" else "-",
            f"`--only {row['experiment']}`",
        )
        for row in summary["correlations"]
    ]
    parts = ["Pearson's r with the achieved test accuracy", markdown(COLUMNS, rows)]
    rows = [
        (
            row["experiment"],
            row["trained"],
            number(row["error"]),
            interval(row["low"], row["high"]),
            f"{row['bias']:+.3f}",
            f"{row['inside']} of {row['n']}",
        )
        for row in summary["forecasts"]
    ]
    columns = ("experiment", "trained", "mean absolute error", "95% interval", "bias", "inside the 90% interval")
    parts += ["Forecasts before training, without a history", markdown(columns, rows)]
    if (found := summary["convergence"]) is not None:
        parts.append(
            f"5.5: rank correlation of LEEP with the epoch that reaches the final accuracy of the reference "
            f"{number(found['spearman'])} ({interval(found['low'], found['high'])}, n = {found['n']}; "
            f"{found['never_passed']} never reached it). Epochs to 90% were foretold from the other runs with a mean "
            f"error of {number(found['epochs_to_90_percent_error'], 2)}; {number(found['inside_80_percent_band'], 2)} "
            "of the validations lay inside the 80% band."
        )
    if summary["sources"]:
        columns = ("chosen by", "trained", "accuracy lost to the best source", "95% interval", "best source found")
        rows = [
            (
                row["score"],
                row["trained"],
                number(row["regret"]),
                interval(row["low"], row["high"]),
                f"{row['best']} of {row['n']}",
            )
            for row in summary["sources"]
        ]
        parts += ["5.6: choosing a source", markdown(columns, rows)]
    text = "\n\n".join(parts)
    (out / "table.md").write_text(text + "\n")
    curves: dict[str, dict[int, float]] = {}
    for key, task in results.by_key.items():
        experiment, _, index = key.partition("/")
        for trained, achieved in task["curves"].items():
            values = {"achieved": achieved[-1], "forecast": task["forecasts"].get(trained, {}).get("value")}
            for name, value in (values | {"leep": task["report"]["leep"]}).items():
                if value is not None:
                    curves.setdefault(f"{experiment}/{trained}/{name}", {})[int(index)] = value
    write_events(out, text, curves)
    return text
