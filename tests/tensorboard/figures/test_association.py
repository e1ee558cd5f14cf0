"""The heat map P(y|z) and the table of the strongest source classes, by what is drawn in them."""

import numpy as np
import pytest
import torch

from lightning_leep.tensorboard import association_figure, strongest_sources_figure
from tests._helpers.drawn_figures import assert_legible, heading

TARGETS, SOURCES = ["apple", "bear", "cat"], ["one", "two", "three", "none"]


def image(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def cells(figure):
    """Texts of the table, row by row."""
    placed = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in figure.axes[0].texts}
    return [placed[key] for key in sorted(placed)]


def test_heat_map_holds_the_conditional(joint):
    figure = association_figure(joint, TARGETS, SOURCES)
    # Columns: "one" speaks for apple (0.8); "three" (0.75) and "two" (0.5) for cat.
    assert labels(figure.axes[0].xaxis) == ["one", "three", "two"]
    assert labels(figure.axes[0].yaxis) == TARGETS
    np.testing.assert_allclose(image(figure), [[0.8, 0.05, 0.1], [0.2, 0.2, 0.4], [0.0, 0.75, 0.5]])
    assert heading(figure) == (
        "What each source class stands for",
        "P(target y | source z) of all 3 target classes; 3 of 4 source classes, with 100.0% of the probability",
    )


def test_table_holds_the_mean_probabilities_of_the_strongest(joint):
    figure = strongest_sources_figure(joint, TARGETS, SOURCES)
    np.testing.assert_allclose(image(figure), [[0.8, 0.1, 0.1], [0.4, 0.4, 0.2], [0.75, 0.25, 0.0]])
    first, second = ["one\n80%", "two\n10%", "three\n10%"], ["two\n40%", "three\n40%", "one\n20%"]
    assert cells(figure) == [*first, *second, "three\n75%", "two\n25%"]
    assert labels(figure.axes[0].yaxis) == TARGETS
    assert labels(figure.axes[0].xaxis) == ["strongest", "2nd", "3rd"]


def test_table_leaves_cells_without_mass_and_absent_target_classes_blank():
    joint = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 3.0]])
    figure = strongest_sources_figure(joint, TARGETS, SOURCES[:2])
    assert labels(figure.axes[0].yaxis) == ["apple", "cat"]
    assert cells(figure) == ["one\n100%", "two\n75%", "one\n25%"]
    assert "2 of 3 target classes" in heading(figure)[1]


def large_joint():
    """100 target classes of falling mass; each has one of 1000 source classes to itself, and all share the first."""
    joint = torch.full((100, 1000), 1e-3, dtype=torch.float64)
    joint[:, 0] = 20
    joint[torch.arange(100), 3 * torch.arange(100) + 7] = 10
    return joint * torch.linspace(2, 1, 100, dtype=torch.float64).unsqueeze(1)


def test_large_task_shows_the_largest_classes_and_says_what_it_leaves_out():
    """As many of the largest target classes as 20 columns can each have their own of."""
    joint = large_joint()
    figure = association_figure(joint)
    assert labels(figure.axes[0].yaxis) == [str(i) for i in range(20)]
    assert labels(figure.axes[0].xaxis) == [str(3 * i + 7) for i in range(20)]
    columns = [3 * i + 7 for i in range(20)]
    np.testing.assert_allclose(image(figure), (joint / joint.sum(0))[:20, columns])
    share = 100 * joint[:20, columns].sum() / joint[:20].sum()
    assert heading(figure)[1] == (
        "P(target y | source z) of 20 of 100 target classes, the largest; "
        f"20 of 1000 source classes, with {share:.1f}% of the probability"
    )
    assert "25 of 100 target classes, the largest" in heading(strongest_sources_figure(joint))[1]


@pytest.mark.parametrize(("scale", "num_targets"), [(1.0, 100), (2.0, 12)])
def test_every_row_has_the_source_class_that_speaks_most_for_it(scale, num_targets):
    """Of the largest J(y,z) P(y|z), whatever else the figure shows; no heavy column crowds it out."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(num_targets, (3000,), generator=generator)
    logits = scale * torch.randn(num_targets, 1000, generator=generator)[classes]
    logits = logits + torch.randn(3000, 1000, generator=generator)
    joint = torch.zeros(num_targets, 1000).index_add_(0, classes, logits.softmax(1)).double()
    figure = association_figure(joint)
    rows, columns = ([int(label) for label in labels(axis)] for axis in (figure.axes[0].yaxis, figure.axes[0].xaxis))
    part = (joint**2 / joint.sum(0)).numpy()
    assert {int(part[row].argmax()) for row in rows} <= set(columns)
    assert len(rows) >= min(num_targets, 20)
    assert len(columns) == 20


def test_rows_that_share_their_source_class_are_not_limited_by_columns():
    """Sixty target classes on ten source classes: the rows stop at 40; the columns are all there."""
    joint = torch.ones(60, 10) + 50 * torch.eye(10).repeat(6, 1)
    figure = association_figure(joint)
    assert labels(figure.axes[0].yaxis) == [str(i) for i in range(40)]
    assert sorted(map(int, labels(figure.axes[0].xaxis))) == list(range(10))


def test_columns_left_over_go_to_the_heaviest_source_classes():
    """Two rows need two columns; the heaviest of the others hold the rest of 99%."""
    joint = torch.tensor([[9.0, 0.0, 5.0, 4.0, 0.01], [0.0, 9.0, 5.0, 4.0, 0.01]])
    assert sorted(labels(association_figure(joint).axes[0].xaxis)) == ["0", "1", "2", "3"]
    # A row of next to no probability, whose square is 0, leaves no hole.
    figure = association_figure(torch.tensor([[0.0, 1.0], [0.0, 1e-300]], dtype=torch.float64))
    assert np.isfinite(image(figure)).all()


def test_columns_follow_the_target_they_speak_for_and_stop_at_99_percent_of_the_mass():
    figure = association_figure(torch.eye(5).flip(0))
    np.testing.assert_array_equal(image(figure), np.eye(5))
    assert labels(figure.axes[0].xaxis) == ["4", "3", "2", "1", "0"]
    joint = torch.tensor([[0.5, 0.3, 0.195, 0.004, 0.001]])
    assert labels(association_figure(joint).axes[0].xaxis) == ["0", "1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("draw", [association_figure, strongest_sources_figure])
@pytest.mark.parametrize(("num_targets", "num_sources"), [(1, 1), (100, 1000)])
def test_legible_with_long_names(draw, num_targets, num_sources):
    generator = torch.Generator().manual_seed(0)
    joint = torch.rand(num_targets, num_sources, generator=generator)
    targets = [f"upright standing piano, number {i:03d}" for i in range(num_targets)]
    sources = [f"German short-haired pointer {i:04d}" for i in range(num_sources)]
    figure = draw(joint, targets, sources)
    assert_legible(figure)
    assert all(len(label) <= 16 for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis) for label in labels(axis))


def test_names_are_no_formulas_and_a_share_too_small_to_show_is_not_zero():
    figure = association_figure(torch.eye(2), ["$\\frac$", "US$"], ["a_b^c", "$x$"])
    figure.canvas.draw()
    assert labels(figure.axes[0].yaxis) == ["$\\frac$", "US$"]
    assert cells(strongest_sources_figure(torch.tensor([[0.999, 0.001]]))) == ["0\n100%", "1\n<1%"]


def test_text_stands_out_from_its_cell():
    figure = strongest_sources_figure(torch.tensor([[0.95, 0.05], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]]))
    picture = figure.axes[0].images[0]
    for text in figure.axes[0].texts:
        column, row = text.get_position()
        background = picture.cmap(picture.norm(picture.get_array()[row, column]))
        assert contrast(background, text.get_color()) > 4  # WCAG 2.1, 1.4.3, asks for 3 of large type and 4.5 of small


def contrast(first, second):
    from matplotlib.colors import to_rgb

    def luminance(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("draw", [association_figure, strongest_sources_figure])
@pytest.mark.parametrize(
    ("joint", "names", "message"),
    [
        (torch.ones(3), {}, r"`joint` must be a matrix \[C, Z\], got shape \(3,\)"),
        (torch.zeros(2, 2), {}, "not all of them zero"),
        (torch.tensor([[1.0, -1.0]]), {}, "non-negative"),
        (torch.tensor([[1.0, float("nan")]]), {}, "finite"),
        (torch.ones(2, 3), {"target_names": ["a"]}, "`target_names` must name the 2 classes of `joint`, got 1 names"),
        (torch.ones(2, 3), {"source_names": list("abcd")}, "`source_names` must name the 3 classes"),
    ],
)
def test_bad_input_is_refused(draw, joint, names, message):
    with pytest.raises(ValueError, match=message):
        draw(joint, **names)
