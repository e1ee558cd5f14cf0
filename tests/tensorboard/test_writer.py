"""Figures and text in event files, read back with TensorBoard's own reader."""

import io

import numpy as np
import pytest
from matplotlib.image import imread
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_leep.records import AccuracyCurve
from lightning_leep.tensorboard import predicted_vs_achieved_figure
from lightning_leep.tensorboard.writer import log_figure, log_text, takes_figures


@pytest.fixture
def figure():
    return predicted_vs_achieved_figure(AccuracyCurve((1, 2), (0.5, 0.7)), 0.6, "a guess")


def test_figure_comes_back_as_it_was_drawn(tmp_path, read_events, figure):
    logger = TensorBoardLogger(tmp_path)
    log_figure(logger, "leep/predicted_vs_achieved", figure, step=7)
    (event,) = read_events(logger).Images("leep/predicted_vs_achieved")
    assert event.step == 7
    picture = imread(io.BytesIO(event.encoded_image_string), format="png")
    figure.canvas.draw()
    np.testing.assert_array_equal((picture * 255).round(), np.asarray(figure.canvas.buffer_rgba())[..., :3])


def test_text_comes_back(tmp_path, read_events):
    logger = TensorBoardLogger(tmp_path)
    log_text(logger, "leep/report", "## A *title*", step=3)
    (event,) = read_events(logger).Tensors("leep/report/text_summary")
    assert event.step == 3
    assert event.tensor_proto.string_val == [b"## A *title*"]


def test_the_other_namespace_is_served(tmp_path, read_events, figure):
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    logger = loggers.TensorBoardLogger(tmp_path)
    assert takes_figures(logger)
    log_figure(logger, "leep/figure", figure, step=0)
    assert len(read_events(logger).Images("leep/figure")) == 1


def test_no_run_folder_is_added(tmp_path, figure):
    logger = TensorBoardLogger(tmp_path, name="run", version="v")
    log_figure(logger, "leep/figure", figure, step=0)
    log_text(logger, "leep/report", "text", step=0)
    logger.finalize("success")
    assert [path.name for path in tmp_path.rglob("*") if path.is_dir()] == ["run", "v"]


def test_a_logger_that_takes_neither_is_passed_over(tmp_path, figure):
    for logger in (CSVLogger(tmp_path), object()):
        assert not takes_figures(logger)
        log_figure(logger, "leep/figure", figure, step=0)
        log_text(logger, "leep/report", "text", step=0)
