"""A report as text: the numbers that matter, or all of them."""

from dataclasses import fields
from math import isfinite
from typing import TYPE_CHECKING

from lightning_leep.records.layers import LayerScore

if TYPE_CHECKING:
    from lightning_leep.records.report import TransferabilityReport


def summary(report: "TransferabilityReport") -> str:
    """The five numbers that matter, as far as the report has them, one a line, and the notes."""
    lines = [f"{report.num_samples} rows of {report.num_target_classes} target classes"]
    largest = f"{report.largest_class_rate:.3f}"
    meanings = {
        "leep": ("LEEP", f"0 is perfect, {report.floor:.3f} says nothing about labels"),
        "leave_one_out_leep": ("leave-one-out LEEP", "as on new data"),
        "eep_accuracy": ("EEP accuracy", "of LEEP's own predictor"),
        "linear_probe_accuracy": ("linear probe accuracy", f"leave-one-out; largest class {largest}"),
        "permutation_p_value": ("permutation p-value", "of LEEP with shuffled labels"),
    }
    for name, (title, meaning) in meanings.items():
        value, error = getattr(report, name), getattr(report, f"{name}_standard_error", None)
        if value is not None and isfinite(value):
            spread = f" ± {error:.3f}" if error is not None and isfinite(error) and name != "leep" else ""
            lines.append(f"{title:<21} {value:>7.3f}{spread} ({meaning})")
    return "\n".join([*lines, *(f"- {note}" for note in report.notes)])


def description(report: "TransferabilityReport") -> str:
    """Every field that has a value, one a line, and the notes; the joint by its shape."""
    values = {f.name: getattr(report, f.name) for f in fields(report) if f.name != "notes"}
    values |= {"floor": report.floor, "leave_one_out_floor": report.leave_one_out_floor}
    shown = {name: value for name, value in values.items() if value is not None and value != ()}
    width = max(len(name) for name in shown)
    lines = [f"{name:<{width}}  {_shown(value)}" for name, value in shown.items()]
    return "\n".join([*lines, *(f"- {note}" for note in report.notes)])


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, LayerScore):
        return f"{value.name} {_shown(value.probe_accuracy)}"
    return f"tensor {list(value.shape)}" if hasattr(value, "shape") else str(value)
