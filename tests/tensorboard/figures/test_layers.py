"""The figure of the probe by layer, by what is drawn in it, and the table of the text panel."""

import dataclasses

import numpy as np
import pytest

from lightning_leep import advise
from lightning_leep.records.layers import LayerScore
from lightning_leep.tensorboard import layers_figure, report_markdown
from tests._helpers.drawn_figures import assert_legible, heading


def with_layers(report, count=3, **kwargs):
    layers = [
        LayerScore(
            name=f"encoder.layers.encoder_layer_{i}",
            width=64,
            kept_width=16,
            probe_accuracy=0.5 + 0.3 * i / count,
            probe_standard_error=0.02,
            h_score=1.5,
            log_me=-0.25,
            feeds_head=i == count - 1,
        )
        for i in range(count)
    ]
    stem = LayerScore(name="stem", width=3, kept_width=3)  # no class of two rows: no probe
    return dataclasses.replace(report, layers=(stem, *layers), multi_layer_probe_accuracy=0.9, **kwargs)


def test_line_band_and_marks(report):
    figure = layers_figure(with_layers(report))
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(drawn) == ["each layer (± standard error)", "all layers together", "input of the head"]
    line, together, head = drawn.values()
    np.testing.assert_allclose(line.get_xydata(), [(0, 0.5), (1, 0.6), (2, 0.7)])
    np.testing.assert_allclose(head.get_xydata(), [(2, 0.7)])
    assert set(together.get_ydata()) == {0.9}
    (band,) = figure.axes[0].collections
    low, high = band.get_paths()[0].get_extents().intervaly
    assert (low, high) == pytest.approx((0.48, 0.72))
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == [f"encoder_layer_{i}" for i in range(3)]  # without what all names begin with
    title, subtitle = heading(figure)
    assert title == "Linear probe by layer"
    assert "all layers together 90.0%" in subtitle


@pytest.mark.parametrize(
    ("probe", "together", "start"), [(0.5, 0.9, -0.5), (0.875, 0.9, 3.5), (0.9, 0.9, 5.5)], ids=["all", "part", "head"]
)
def test_the_recommended_cut(report, probe, together, start):
    report = with_layers(report, 6, linear_probe_accuracy=probe)
    whole = tuple(dataclasses.replace(layer, kept_width=layer.width) for layer in report.layers)
    report = dataclasses.replace(report, multi_layer_probe_accuracy=together, layers=whole)
    advice = advise(report)
    figure = layers_figure(report, advice)
    axes = figure.axes[0]
    assert f"Recommended: {advice.choice.what}." in heading(figure)[1].replace("\n", " ")
    (line,) = [line for line in axes.lines if line.get_label() == "recommended cut"]
    assert set(line.get_xdata()) == {start}
    (area,) = axes.patches
    assert (area.get_x(), area.get_x() + area.get_width()) == pytest.approx((start, 5.6))
    assert_legible(figure)


def test_nothing_recommended_has_no_cut_and_a_report_without_layers_no_figure(report):
    without_head = with_layers(report, linear_probe_accuracy=None)
    assert not layers_figure(without_head, advise(without_head)).axes[0].patches
    with pytest.raises(ValueError, match="layers"):
        layers_figure(report)


@pytest.mark.parametrize("count", [1, 17, 60])
def test_any_number_of_layers_is_legible(report, count):
    assert_legible(layers_figure(with_layers(report, count)))


def test_table_of_the_text_panel(report):
    text = report_markdown(with_layers(report))
    assert "| `stem` | 3 | - | - | - |" in text
    assert "| `encoder.layers.encoder_layer_1` | 16 of 64 | 60.0% ± 3.9% | 1.500 | -0.250 |" in text
    assert (
        "| `encoder.layers.encoder_layer_2` (goes into the head) | 16 of 64 | 70.0% ± 3.9% | 1.500 | -0.250 |" in text
    )
    assert "| all together | 51 | 90.0% | - | - |" in text
    assert "all together" not in report_markdown(report)
