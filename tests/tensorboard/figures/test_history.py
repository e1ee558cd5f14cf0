"""The figures of earlier transfers, by what is drawn in them."""

import dataclasses
import math

import numpy as np
import pytest

from lightning_leep.forecast import AccuracyForecast, leep_levels
from lightning_leep.records import AccuracyCurve
from lightning_leep.tensorboard import history_figure, levels_figure
from tests._helpers.drawn_figures import assert_legible, heading
from tests._helpers.simulated_transfers import make_record, make_report

CURVE = AccuracyCurve((1, 2, 3), (0.5, 0.75, 0.7))
FORECAST = AccuracyForecast(value=0.7, low=0.6, high=0.85, coverage=0.9, trainable="head", basis="9 rows")


def transfer(leep, best, epochs=3):
    times = tuple(range(1, epochs + 1))
    curve = AccuracyCurve(times, tuple(best * t / epochs for t in times))
    return make_record(report=make_report(leep=leep), curve=curve)


def make_history(size, epochs=3):
    return [transfer(-2 + 1.5 * i / max(size - 1, 1), 0.4 + 0.5 * i / size, epochs) for i in range(size)]


def marks(figure):
    """Every marker outside the legend that stands for an earlier transfer."""
    points = [line.get_xydata() for line in figure.axes[0].lines if not line.get_label().startswith("this run")]
    # An error bar draws its caps and its value as lines of their own, all at this run's LEEP.
    return {tuple(np.round(p, 6)) for xy in points for p in xy if not math.isclose(p[0], -0.5)}


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


@pytest.mark.parametrize("size", [1, 2, 12])
def test_each_transfer_is_a_mark_at_its_leep_and_best_accuracy(size, report):
    history = make_history(size)[:-1] or make_history(1)  # the last one would stand where this run does
    drawn = marks(history_figure(report, history, FORECAST, CURVE))
    assert drawn == {tuple(np.round((r.report.leep, r.curve.best), 6)) for r in history}


def test_this_run_stands_at_its_leep_with_its_interval(report):
    axes = history_figure(report, make_history(12), FORECAST, CURVE).axes[0]
    star = lines(axes.figure)["this run, achieved"]
    assert star.get_xydata().tolist() == [[-0.5, 0.75]]
    (bar,) = axes.containers
    np.testing.assert_allclose(bar[2][0].get_segments()[0], [(-0.5, 0.6), (-0.5, 0.85)])
    assert heading(axes.figure) == (
        "This run among earlier transfers",
        "Each mark is one of 12 transfers. Predicted 70.0% (60.0% to 85.0%), achieved 75.0%.",
    )


def test_what_is_not_known_of_this_run_is_not_shown(report):
    figure = history_figure(report, make_history(12), FORECAST)
    assert "this run, achieved" not in lines(figure)
    assert "achieved" not in heading(figure)[1]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["this run, predicted"]
    figure = history_figure(report, make_history(3), None, CURVE)
    assert not figure.axes[0].containers
    assert "Predicted" not in heading(figure)[1]
    figure = history_figure(dataclasses.replace(report, leep=math.nan), make_history(3), FORECAST, CURVE)
    assert len(marks(figure)) >= 2  # the others alone
    assert not figure.axes[0].containers
    assert not figure.legends


@pytest.mark.parametrize(("size", "count"), [(4, 2), (12, 3), (20, 5)])
def test_levels_are_those_of_the_paper_fewer_in_a_short_history(size, count):
    history = make_history(size)
    figure = levels_figure(history, CURVE)
    means = [level.accuracy for level in leep_levels(history, count)]
    drawn = [line.get_ydata() for label, line in lines(figure).items() if label != "this run"]
    assert len(drawn) == count
    for line, mean in zip(drawn, means, strict=True):
        np.testing.assert_allclose(line, mean.mean)
    np.testing.assert_array_equal(lines(figure)["this run"].get_xydata(), [(1, 0.5), (2, 0.75), (3, 0.7)])
    if size == 12:
        assert [text.get_text() for text in figure.legends[0].get_texts()] == [
            "\N{MINUS SIGN}2.00 to \N{MINUS SIGN}1.50 (4 runs)",
            "\N{MINUS SIGN}1.50 to \N{MINUS SIGN}1.00 (4 runs)",
            "\N{MINUS SIGN}1.00 to \N{MINUS SIGN}0.50 (4 runs)",
            "this run",
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "epochs", "curve"),
    [(1, 1, AccuracyCurve()), (2, 3, CURVE), (5, 1, AccuracyCurve((1,), (0.5,))), (60, 3, CURVE)],
)
def test_everything_is_legible(size, epochs, curve, report):
    assert_legible(history_figure(report, make_history(size, epochs), FORECAST, curve))
    assert_legible(levels_figure(make_history(size, epochs), curve))


def test_narrow_ranges_are_legible_and_a_history_of_equal_accuracies_looks_flat(report):
    history = [transfer(-0.5 - 0.001 * i, 0.999) for i in range(6)]
    assert_legible(history_figure(report, history, FORECAST, CURVE))
    low, high = history_figure(report, [transfer(-1, 0.7), transfer(-0.6, 0.7)]).axes[0].get_ylim()
    assert high - low > 0.08


def test_transfers_that_others_cannot_learn_from_are_left_out(report):
    left_out = [
        make_record(curve=AccuracyCurve()),
        make_record(report=make_report(leep=math.nan)),
        dataclasses.replace(transfer(-0.8, 0.6), complete=False),
        dataclasses.replace(transfer(-0.8, 0.6), trainable="scratch"),
    ]
    assert marks(history_figure(report, [*left_out, transfer(-1, 0.7)])) == {(-1.0, 0.7)}
    for draw in (lambda history: history_figure(report, history), levels_figure):
        for history in ([], left_out):
            with pytest.raises(ValueError, match="`history` must hold at least one complete transfer"):
                draw(history)
