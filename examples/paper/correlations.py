"""Correlations with intervals, and tables of them, made from results in JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 2000


def finite(*columns: Sequence[float | None]) -> np.ndarray:
    """The columns ``[k, n]``, without the rows in which one of them is not a finite number."""
    table = np.array(columns, dtype=float)  # [k, n]; None becomes NaN
    return table[:, np.isfinite(table).all(0)]


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r along the last axis; NaN for fewer than 3 pairs or values that do not vary."""
    if x.shape[-1] < 3:
        return np.full(x.shape[:-1], np.nan)[()]
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    scale = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 1e-12, (x * y).sum(-1) / scale, np.nan)[()]


def resampled(values: Sequence[np.ndarray], statistic: Any, seed: int = 0) -> tuple[float, float]:
    """95% percentile bootstrap interval of a statistic along the last axis of arrays ``[n]`` that belong together."""
    num = len(values[0])
    if num < 3:
        return float("nan"), float("nan")
    rows = np.random.default_rng(seed).integers(num, size=(RESAMPLES, num))
    found = np.asarray(statistic(*(value[rows] for value in values)))  # of arrays [resamples, n]
    if not np.isfinite(found).any():
        return float("nan"), float("nan")
    low, high = np.nanquantile(found, (0.025, 0.975))
    return float(low), float(high)


def without(x: np.ndarray, confounder: np.ndarray) -> np.ndarray:
    """What a straight line through ``confounder`` does not explain of ``x``."""
    if np.ptp(confounder) == 0:
        return x - x.mean()
    return x - np.polyval(np.polyfit(confounder, x, 1), confounder)


def correlation(scores: Sequence[float | None], achieved: Sequence[float]) -> dict[str, float]:
    """Pearson's r with p-value and bootstrap interval; NaN where it does not exist."""
    x, y = finite(scores, achieved)
    r = float(pearson(x, y))
    low, high = resampled((x, y), pearson)
    p = float(stats.pearsonr(x, y).pvalue) if np.isfinite(r) else float("nan")
    return {"n": len(x), "r": r, "p": p, "low": low, "high": high}


def gain(score: Sequence[float | None], other: Sequence[float | None], achieved: Sequence[float]) -> dict[str, float]:
    """Pearson's r of a score minus that of another one on the same tasks, with its bootstrap interval."""
    a, b, y = finite(score, other, achieved)
    low, high = resampled((a, b, y), lambda a, b, y: pearson(a, y) - pearson(b, y))
    return {"difference": float(pearson(a, y) - pearson(b, y)), "low": low, "high": high}


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash if there is none."""
    return "-" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def interval(low: float, high: float) -> str:
    """An interval for a table."""
    return f"{number(low)} to {number(high)}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_into(page: Path, text: str) -> None:
    """Put a text between the two comments ``results`` and ``end of results`` of a page."""
    before, rest = page.read_text().split("<!-- results -->")
    _, after = rest.split("<!-- end of results -->")
    page.write_text(f"{before}<!-- results -->\n\n{text}\n\n<!-- end of results -->{after}")


def write_events(folder: Path, text: str, curves: Mapping[str, Mapping[int, float]]) -> None:
    """Write the tables, the figures of a folder and curves (values by step) for TensorBoard, into ``tensorboard``."""
    from matplotlib.image import imread
    from torch.utils.tensorboard import SummaryWriter

    rmtree(folder / "tensorboard", ignore_errors=True)  # the events of an earlier run
    with SummaryWriter(folder / "tensorboard") as writer:
        writer.add_text("tables", text)
        for path in sorted(folder.glob("*.png")):
            writer.add_image(path.stem, imread(path)[..., :3], dataformats="HWC")
        for tag, curve in curves.items():
            for step, value in curve.items():
                writer.add_scalar(tag, value, step)


class Results:
    """Results of tasks in a file of JSON lines. Each is kept as soon as it is there, so that a run can be continued."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # the run was interrupted while it wrote this line
                continue
        self.by_key: dict[str, dict[str, Any]] = {result["key"]: result for result in found}

    def add(self, result: dict[str, Any]) -> None:
        """Keep one result."""
        with open(self.path, "a") as file:
            file.write(json.dumps(result) + "\n")
        self.by_key[result["key"]] = result

    def of(self, experiment: str) -> list[dict[str, Any]]:
        """The results of one experiment."""
        return [result for result in self.by_key.values() if result["experiment"] == experiment]
