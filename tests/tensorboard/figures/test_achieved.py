"""The figure of predicted and achieved accuracy, by what is drawn in it."""

import sys

import numpy as np
import pytest

from lightning_leep.forecast import MeanCurve
from lightning_leep.records import AccuracyCurve
from lightning_leep.tensorboard import predicted_vs_achieved_figure, strongest_sources_figure
from tests._helpers.drawn_figures import assert_legible, heading

CURVE = AccuracyCurve((1, 2, 3), (0.5, 0.75, 0.7))
SCRATCH = AccuracyCurve((1, 2, 3), (0.1, 0.2, 0.4))
LABEL = "accuracy of the EEP, which needs no training; usually a lower bound"


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def test_shows_curve_prediction_and_reference_and_tells_the_outcome():
    figure = predicted_vs_achieved_figure(CURVE, 0.6, LABEL, reference=SCRATCH)
    drawn, axes = lines(figure), figure.axes[0]
    assert list(drawn) == ["achieved, best 75.0%", "predicted 60.0%", "reference, best 40.0%"]
    np.testing.assert_array_equal(drawn["achieved, best 75.0%"].get_xydata(), [(1, 0.5), (2, 0.75), (3, 0.7)])
    np.testing.assert_array_equal(drawn["reference, best 40.0%"].get_xydata(), [(1, 0.1), (2, 0.2), (3, 0.4)])
    assert set(drawn["predicted 60.0%"].get_ydata()) == {0.6}
    assert not axes.patches
    assert heading(figure) == (
        "Predicted and achieved accuracy",
        f"Prediction reached after 2 epochs; best 75.0% after 2. Prediction: {LABEL}.",
    )
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epochs trained", "accuracy")
    figure.canvas.draw()
    assert all(label.get_text().endswith("%") for label in axes.get_yticklabels())
    assert all(tick % 1 == 0 for tick in axes.get_xticks())


def test_interval_and_expected_curve_are_bands_and_everything_is_named():
    expected = MeanCurve((1, 2, 4), (0.3, 0.5, 0.6), (0.2, 0.4, 0.55), (0.4, 0.6, 0.65), num_curves=9)
    figure = predicted_vs_achieved_figure(CURVE, 0.6, LABEL, (0.52, 0.641), SCRATCH, expected=expected)
    drawn, axes = lines(figure), figure.axes[0]
    np.testing.assert_array_equal(drawn["expected on the way"].get_xydata(), [(1, 0.3), (2, 0.5), (4, 0.6)])
    assert "predicted 60.0% (52 to 64%)" in drawn
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.52, 0.641))
    corners = {tuple(vertex) for vertex in axes.collections[0].get_paths()[0].vertices.round(6).tolist()}
    assert {(1, 0.2), (1, 0.4), (4, 0.55), (4, 0.65)} <= corners
    assert axes.get_xlim()[1] > 4
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(drawn)
    assert len({line.get_linestyle() for line in drawn.values()}) == 4  # not told apart by colour alone
    assert_legible(figure)


@pytest.mark.parametrize(
    ("curve", "predicted", "interval", "reference"),
    [
        (AccuracyCurve(), 0.5, None, AccuracyCurve()),
        (AccuracyCurve((1,), (0.5,)), 0.5, None, None),
        (AccuracyCurve((1, 2), (1.0, 0.9)), 1.0, None, AccuracyCurve((1, 2), (1.0, 0.9))),
        (AccuracyCurve((1, 2), (0.5, 0.501)), 0.5, None, None),
        (AccuracyCurve((0, 1), (0, 0)), 0.0, (0.0, 0.1), AccuracyCurve((1, 9), (0.2, 0.9))),
        (AccuracyCurve(tuple(range(300)), (0.999,) * 300), 0.2, (0.1, 0.3), 0.95),
    ],
)
def test_everything_is_inside_and_legible(curve, predicted, interval, reference):
    figure = predicted_vs_achieved_figure(curve, predicted, LABEL, interval, reference)
    assert_legible(figure)
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    assert high - low > 0.1  # a flat curve looks flat
    for line in axes.lines:
        assert all(low < y < high for y in line.get_ydata())
    left, right = axes.get_xlim()
    assert all(left < epoch < right for epoch in curve.epochs)


def test_impossible_prediction_and_interval_are_refused():
    for predicted in (-0.1, 71.0, float("nan")):
        with pytest.raises(ValueError, match="`predicted` must lie in 0..1"):
            predicted_vs_achieved_figure(CURVE, predicted, LABEL)
    for interval in ((0.7, 0.6), (-0.1, 0.5), (0.5, 1.1)):
        with pytest.raises(ValueError, match="`interval` must be"):
            predicted_vs_achieved_figure(CURVE, 0.6, LABEL, interval)


def test_the_users_style_neither_shows_nor_changes_and_pyplot_hears_of_no_figure():
    from matplotlib import pyplot, rcParams, style
    from matplotlib.colors import to_hex

    with style.context(["dark_background", {"font.size": 40}]):
        before, open_before = dict(rcParams), pyplot.get_fignums()  # other tests may have left some
        figure = predicted_vs_achieved_figure(CURVE, 0.6, LABEL)
        assert dict(rcParams) == before
        assert pyplot.get_fignums() == open_before
        figure.canvas.draw()
        assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
        axes = figure.axes[0]
        for text in (axes.xaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels(), *figure.texts):
            assert to_hex(text.get_color()) == "#000000"
            assert text.get_fontsize() < 20


def test_missing_matplotlib_says_how_to_install_it(monkeypatch, joint):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (lambda: predicted_vs_achieved_figure(CURVE, 0.6, LABEL), lambda: strongest_sources_figure(joint)):
        with pytest.raises(ImportError, match=r'pip install "lightning-leep\[figures\]"'):
            draw()
