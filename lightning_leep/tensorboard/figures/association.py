"""Which source classes correspond to which target classes: P(y|z) as a heat map, the strongest ones as a table."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_leep.records.association import MAX_COLUMNS, MAX_NAME, MAX_ROWS, Association
from lightning_leep.tensorboard.figures.style import HEAT_MAP, Figure, new_figure, styled
from lightning_leep.tensorboard.words import percent, shorten

MAX_TABLE_ROWS = 25
RANKS = ("strongest", "2nd", "3rd")
#: The heat map shows the heaviest source classes until they hold this share of the mass.
MASS_SHOWN = 0.99


@styled
def association_figure(
    joint: Tensor, target_names: Sequence[str] | None = None, source_names: Sequence[str] | None = None
) -> Figure:
    r"""Heat map of :math:`P(y|z) = J(y,z) / \sum_y J(y,z)`: target classes as rows, source classes as columns.

    The rows are the target classes, the 40 heaviest ones if there are more. Each row has the column of its own source
    class: the z with the largest :math:`J(y,z) P(y|z)`, which contributes most to the probability that the expected
    empirical predictor gives to y. If that takes more than 20 columns, rows are dropped. The remaining columns are the
    heaviest source classes, until 99% of the mass is shown or there are 20 columns. Columns are ordered by the target
    class that they point to. The subtitle says what was left out.

    It takes the sum of source distributions for each target class, ``joint [C, Z]``, and names, which by default are
    numbers. The figure is not registered in pyplot. ``ValueError`` if ``joint`` is not a matrix of finite, non-negative
    numbers with a positive sum, or there are not as many names as classes.
    """
    joint, targets, sources = _checked(joint, target_names, source_names)
    rows, columns, conditional = _selected(joint)
    from matplotlib.ticker import PercentFormatter

    subtitle = f"P(target y | source z) of {_rows_left_out(joint, rows)}; {_columns_left_out(joint, rows, columns)}"
    figure, axes = new_figure(1.9 + 0.22 * max(len(rows), 6), "What each source class stands for", subtitle)
    axes.grid(False)
    image = axes.imshow(conditional.numpy(), cmap=HEAT_MAP, vmin=0, aspect="auto")
    axes.set_xticks(range(len(columns)), [shorten(sources[j], 16) for j in columns], rotation=90, fontsize=11)
    axes.set_yticks(range(len(rows)), [shorten(targets[i], 16) for i in rows], fontsize=11)
    axes.set(xlabel="source class z", ylabel="target class y")
    figure.colorbar(image, ax=axes, format=PercentFormatter(xmax=1, decimals=0), fraction=0.05, pad=0.02)
    return figure


@styled
def strongest_sources_figure(
    joint: Tensor, target_names: Sequence[str] | None = None, source_names: Sequence[str] | None = None
) -> Figure:
    r"""Table of the three source classes that the source model sees most in each target class, strongest first.

    A cell holds a source class z and :math:`P(z|y) = J(y,z) / \sum_z J(y,z)`, its mean probability over the rows of the
    target class. Arguments, result and errors are those of :func:`association_figure`.
    """
    joint, targets, sources = _checked(joint, target_names, source_names)
    mass = joint.sum(1)
    heaviest = mass.argsort(descending=True, stable=True)[:MAX_TABLE_ROWS].tolist()
    rows = sorted(i for i in heaviest if mass[i] > 0)
    shares, strongest = (joint[rows] / joint[rows].sum(1, keepdim=True)).sort(dim=1, descending=True, stable=True)
    shares = shares[:, : len(RANKS)]  # [rows, 3]
    subtitle = f"Mean probability of its strongest source classes; {_rows_left_out(joint, rows)}"
    figure, axes = new_figure(0.5 + 0.44 * len(rows), "What the source sees in each class", subtitle)
    axes.grid(False)
    axes.imshow(shares.numpy(), cmap=HEAT_MAP, vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(shares.tolist()):
        for rank, share in enumerate(row):
            if share > 0:
                name = shorten(sources[int(strongest[i, rank])], min(14, 39 // len(row)))
                text = f"{name}\n{100 * share:.0f}%" if share >= 0.005 else f"{name}\n<1%"
                color = "white" if share > 0.65 else "black"
                axes.text(rank, i, text, ha="center", va="center", color=color, fontsize=11, linespacing=1)
    axes.set_xticks(range(shares.shape[1]), RANKS[: shares.shape[1]])
    axes.set_yticks(range(len(rows)), [shorten(targets[i], 14) for i in rows])
    axes.tick_params(length=0)
    return figure


def association_of(
    joint: Tensor, target_names: Sequence[str] | None = None, source_names: Sequence[str] | None = None
) -> Association:
    """The numbers of :func:`association_figure` as plain data, P(y|z) to three digits."""
    joint, targets, sources = _checked(joint, target_names, source_names)
    rows, columns, conditional = _selected(joint)
    return Association(
        targets=tuple(shorten(targets[i], MAX_NAME) for i in rows),
        sources=tuple(shorten(sources[j], MAX_NAME) for j in columns),
        p=tuple(tuple(round(value, 3) for value in row) for row in conditional.tolist()),
        left_out=f"Shown: {_rows_left_out(joint, rows)}; {_columns_left_out(joint, rows, columns)}.",
    )


def _selected(joint: Tensor) -> tuple[list[int], list[int], Tensor]:
    """The rows and columns that are shown, and P(y|z) there, ``[rows, columns]``."""
    conditional = joint / joint.sum(0).clamp(min=torch.finfo(joint.dtype).tiny)  # [C, Z]
    rows, columns = _shown(joint, (joint * conditional).argmax(1).tolist())
    conditional = conditional[rows][:, columns]  # [rows, columns]
    # From the target class a column speaks for to the next, the surest first: the eye can follow the diagonal.
    highest, targets = conditional.max(0)
    order = sorted(range(len(columns)), key=lambda j: (int(targets[j]), -float(highest[j])))
    return rows, [columns[j] for j in order], conditional[:, order]


def _checked(
    joint: Tensor, target_names: Sequence[str] | None, source_names: Sequence[str] | None
) -> tuple[Tensor, Sequence[str], Sequence[str]]:
    if joint.ndim != 2:
        raise ValueError(f"`joint` must be a matrix [C, Z], got shape {tuple(joint.shape)}.")
    joint = joint.detach().to("cpu", torch.float64)
    if not (bool(joint.isfinite().all()) and bool((joint >= 0).all()) and float(joint.sum()) > 0):
        raise ValueError("`joint` must hold finite, non-negative sums of probabilities, not all of them zero.")
    names = []
    arguments = zip(("target_names", "source_names"), (target_names, source_names), joint.shape, strict=True)
    for argument, given, size in arguments:
        if given is not None and len(given) != size:
            raise ValueError(f"`{argument}` must name the {size} classes of `joint`, got {len(given)} names.")
        names.append(list(map(str, range(size) if given is None else given)))
    return joint, names[0], names[1]


def _shown(joint: Tensor, own: list[int]) -> tuple[list[int], list[int]]:
    """Rows, the largest ones, and columns, among them the own one of each row."""
    rows: list[int] = []
    columns: dict[int, None] = {}
    for row in joint.sum(1).argsort(descending=True, stable=True)[:MAX_ROWS].tolist():
        if joint[row].sum() > 0:  # an absent class has no column of its own
            if own[row] not in columns and len(columns) == MAX_COLUMNS:
                break
            columns[own[row]] = None
        rows.append(row)
    mass = joint[rows].sum(0)
    order = mass.argsort(descending=True, stable=True)
    before = mass[order].cumsum(0) - mass[order]
    needed = int(((before < MASS_SHOWN * mass.sum()) & (mass[order] > 0)).sum())
    return sorted(rows), list(columns | dict.fromkeys(order[:needed].tolist()))[:MAX_COLUMNS]


def _rows_left_out(joint: Tensor, rows: list[int]) -> str:
    count = f"{joint.shape[0]} target classes"
    return f"all {count}" if len(rows) == len(joint) else f"{len(rows)} of {count}, the largest"


def _columns_left_out(joint: Tensor, rows: list[int], columns: list[int]) -> str:
    count = joint.shape[1]
    if len(columns) == count:
        return f"all {count} source classes"
    share = percent(float(joint[rows][:, columns].sum() / joint[rows].sum()))
    return f"{len(columns)} of {count} source classes, with {share} of the probability"
