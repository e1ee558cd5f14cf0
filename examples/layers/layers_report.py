"""Table, tests and figure of the transferability of layers, made from ``results.jsonl`` and never typed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

COLORS = {"AnB": "#c0392b", "BnB": "#3b6fb6", "RnB": "#888888", "AnB+": "#e08a3c", "BnB+": "#3aa7a0"}


def changes(results: list[dict[str, Any]], kind: str) -> dict[int, list[float]]:
    """Accuracy minus that of a network trained on B from random weights, by cut, one value a seed."""
    base = {result["seed"]: result["accuracy"] for result in results if result["kind"] == "base"}
    found: dict[int, list[float]] = {}
    for result in results:
        if result["kind"] == kind and result["seed"] in base:
            found.setdefault(result["n"], []).append(result["accuracy"] - base[result["seed"]])
    return dict(sorted(found.items()))


def estimate(values: list[float], most: float = np.inf) -> dict[str, float | None]:
    """Mean with its 95% t-interval over seeds, within ``-most .. most``; no interval for a single seed."""
    mean, num = float(np.mean(values)), len(values)
    if num < 2:
        return {"mean": mean, "low": None, "high": None, "standard_error": None, "seeds": num}
    error = float(np.std(values, ddof=1) / num**0.5)
    half = float(stats.t.ppf(0.975, num - 1)) * error
    low, high = max(mean - half, -most), min(mean + half, most)
    return {"mean": mean, "low": low, "high": high, "standard_error": error, "seeds": num}


def by_seed(results: list[dict[str, Any]], kind: str) -> list[dict[int, float]]:
    """The same changes, one mapping from cut to change for each seed that has all cuts."""
    seeds = sorted({result["seed"] for result in results})
    parts = (changes([result for result in results if result["seed"] == seed], kind) for seed in seeds)
    found = [{n: values[0] for n, values in part.items()} for part in parts if part]
    return [part for part in found if len(part) == max(map(len, found))]


def readings(results: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """The paper's three readings, each as a number of accuracy that it says is negative, negative, positive."""
    found = {}
    general = [found[max(found)] - found[min(found)] for found in by_seed(results, "AnB")]
    if general:
        found["general to specific: AnB at the last cut minus AnB at the first"] = estimate(general)
    own = [f for f in by_seed(results, "BnB") if len(f) > 2]
    # The mean in the middle: the lowest of several noisy cuts would be a dip by itself.
    dips = [float(np.mean(list(f.values())[1:-1])) - (f[min(f)] + f[max(f)]) / 2 for f in own]
    if dips:
        found["co-adaptation: mean BnB of the cuts between minus that of the first and the last cut"] = estimate(dips)
    gains = [float(np.mean(list(f.values()))) for f in by_seed(results, "AnB+")]
    if gains:
        found["fine-tuned transfer: mean AnB+"] = estimate(gains)
    return found


def foretold(results: list[dict[str, Any]]) -> dict[str, float | None] | None:
    """Rank correlation over the cuts of the drop of AnB with the drop of the probe, one value a seed.

    The drop of the probe is the accuracy of the probe on the last kept layer of A's network, minus the same for B's.
    """
    values = [rank_correlation(list(drops.values())) for drops in pairs_of_drops(results).values() if len(drops) > 2]
    return estimate(values, most=1) if values else None


def foretold_between(similar: list[dict[str, Any]], dissimilar: list[dict[str, Any]]) -> dict[str, float | None] | None:
    """The same for what AnB and the probe lose more on dissimilar halves than on similar ones."""
    values = []
    there = pairs_of_drops(dissimilar)
    for seed, drops in pairs_of_drops(similar).items():
        more = [np.subtract(there[seed][n], drops[n]).tolist() for n in drops if n in there.get(seed, {})]
        if len(more) > 2:
            values.append(rank_correlation(more))
    return estimate(values, most=1) if values else None


def pairs_of_drops(results: list[dict[str, Any]]) -> dict[int, dict[int, tuple[float, float]]]:
    """The drop of the probe and that of AnB, by seed and cut."""
    found = {}
    for result in (result for result in results if result["kind"] == "scores"):
        drops = changes([other for other in results if other["seed"] == result["seed"]], "AnB")
        probes = list(zip(result["probe_A"], result["probe_B"], strict=True))
        known = {n: probes[n - 1] for n in drops if None not in probes[n - 1]}
        found[result["seed"]] = {n: (of_a - of_b, drops[n][0]) for n, (of_a, of_b) in known.items()}
    return found


def rank_correlation(pairs: list[tuple[float, float]]) -> float:
    """Spearman's rank correlation."""
    return float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)


def write_report(results: Any, out: Path, curve: Path | None = None) -> str:
    """Write ``summary.json``, ``table.md``, ``layers.png`` and TensorBoard's events; return the tables."""
    paper = None if curve is None else json.loads(curve.read_text())
    summary: dict[str, Any] = {}
    for split in dict.fromkeys(result["experiment"] for result in results.by_key.values()):
        rows = results.of(split)
        base = [row["accuracy"] for row in rows if row["kind"] == "base"]
        summary[split] = {
            "base": estimate(base) if base else None,
            "changes": {kind: {n: estimate(v) for n, v in changes(rows, kind).items()} for kind in COLORS},
            "readings": readings(rows),
            "probe_foretells_drop": foretold(rows),
        }
    draw(summary, out / "layers.png", paper)
    text = "\n\n".join(table(split, part, paper) for split, part in summary.items())
    between = foretold_between(results.of("random"), results.of("man-made"))
    if between is not None:
        text += "\n\n**both**: the same rank correlation, of what each loses more on man-made against natural halves: "
        text += shown(between, 1, "+.2f")
    (out / "summary.json").write_text(json.dumps(summary | {"both": {"probe_foretells_drop": between}}, indent=1))
    (out / "table.md").write_text(text + "\n")
    from correlations import write_events  # in examples/paper, which the program has put on the path

    kinds = {f"{split}/{kind}": found for split, part in summary.items() for kind, found in part["changes"].items()}
    write_events(out, text, {tag: {n: value["mean"] for n, value in found.items()} for tag, found in kinds.items()})
    return text


def shown(value: dict[str, float | None] | None, scale: float = 100, form: str = "+.1f") -> str:
    """A number with its interval."""
    if value is None:
        return "-"
    text = f"{scale * value['mean']:{form}}"
    if value["low"] is not None:
        text += f" ({scale * value['low']:{form}} to {scale * value['high']:{form}})"
    return text


def table(split: str, part: dict[str, Any], paper: dict[str, Any] | None) -> str:
    """Changes by cut, the readings, and what the probes foretold."""
    cuts = sorted({n for values in part["changes"].values() for n in values})
    beside = [] if paper is None or split != "random" else ["AnB", "BnB", "AnB+", "BnB+"]
    header = ["cut after layer", *part["changes"], *(f"{kind} (paper)" for kind in beside)]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for n in cuts:
        cells = [shown(values.get(n)) for values in part["changes"].values()]
        cells += [f"{paper[kind][paper['layers'].index(n)]:+.1f}" for kind in beside]
        lines.append("| " + " | ".join([str(n), *cells]) + " |")
    base = shown(part["base"], form=".1f")
    text = [f"**{split}**: accuracy on B in points, minus that of a network trained on B alone: {base} %"]
    text += ["\n".join(lines)]
    text += [f"{name}: {shown(value)} points, {value['seeds']} seeds" for name, value in part["readings"].items()]
    if part["probe_foretells_drop"] is not None:
        rank = shown(part["probe_foretells_drop"], 1, "+.2f")
        text.append(f"rank correlation over the cuts of the drop of AnB with the drop of the probe: {rank}")
    return "\n\n".join(text)


def draw(summary: dict[str, Any], path: Path, paper: dict[str, Any] | None) -> None:
    """The figure of the paper: change of accuracy against the cut, with standard errors, the paper's curve dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(summary), 3.6), layout="constrained")
    panels = figure.subplots(1, len(summary), squeeze=False, sharey=True)[0]
    lowest = 0.0
    for axes, (split, part) in zip(panels, summary.items(), strict=True):
        axes.axhline(0, color="#999999", linewidth=0.8)
        for place, (kind, values) in enumerate(part["changes"].items()):
            if not values:
                continue
            means = [100 * value["mean"] for value in values.values()]
            errors = [100 * (value["standard_error"] or 0) for value in values.values()]
            cuts = [n + 0.06 * (place - 2) for n in values]  # side by side, so that all error bars are seen
            axes.errorbar(cuts, means, errors, color=COLORS[kind], marker="o", markersize=4, label=kind, capsize=2)
            if kind != "RnB":
                lowest = min(lowest, *(mean - error for mean, error in zip(means, errors, strict=True)))
            if paper is not None and split == "random" and kind in paper:
                axes.plot(paper["layers"], paper[kind], "--", color=COLORS[kind], alpha=0.6, linewidth=1)
        axes.set(title=f"{split} halves", xlabel="layers kept from the other network")
    panels[0].set_ylabel("change of accuracy, points")
    panels[0].set_ylim(lowest - 3, 6)  # random layers leave the picture
    panels[-1].legend(frameon=False, fontsize=8, loc="lower left")
    figure.savefig(path, dpi=120)
