"""Figures and text in event files, read back with TensorBoard's own reader."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from lightning_leep.records import AccuracyCurve
from lightning_leep.tensorboard import predicted_vs_achieved_figure
from lightning_leep.tensorboard.writer import log_figure, log_text, log_transfer, takes_figures


@pytest.fixture
def figure():
    return predicted_vs_achieved_figure(AccuracyCurve((1, 2), (0.5, 0.7)), 0.6, "a guess")


def test_figure_and_text_come_back_without_a_run_folder_of_their_own(tmp_path, read_events, figure):
    logger = TensorBoardLogger(tmp_path, name="run", version="v")
    log_figure(logger, "leep/predicted_vs_achieved", figure, step=7)
    log_text(logger, "leep/report", "## A *title*", step=3)
    events = read_events(logger)
    (event,) = events.Images("leep/predicted_vs_achieved")
    assert event.step == 7
    picture = imread(io.BytesIO(event.encoded_image_string), format="png")
    figure.canvas.draw()
    np.testing.assert_array_equal((picture * 255).round(), np.asarray(figure.canvas.buffer_rgba())[..., :3])
    (event,) = events.Tensors("leep/report/text_summary")
    assert (event.step, event.tensor_proto.string_val) == (3, [b"## A *title*"])
    assert [path.name for path in tmp_path.rglob("*") if path.is_dir()] == ["run", "v"]


def test_the_other_namespace_is_served(tmp_path, read_events, figure):
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    logger = loggers.TensorBoardLogger(tmp_path)
    assert takes_figures(logger)
    log_figure(logger, "leep/figure", figure, step=0)
    assert len(read_events(logger).Images("leep/figure")) == 1


def test_a_logger_that_takes_none_of_it_is_passed_over(tmp_path, figure):
    for logger in (CSVLogger(tmp_path), object()):
        assert not takes_figures(logger)
        log_figure(logger, "leep/figure", figure, step=0)
        log_text(logger, "leep/report", "text", step=0)
        log_transfer(logger, "leep/transfer", {}, 0)


class Wandb(WandbLogger):
    """W&B's logger without its service: what reaches its methods."""

    def __init__(self):
        self.seen = {}

    experiment = None

    def log_image(self, key, images, step=None, **kwargs):
        self.seen[key] = (images, step)

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None):
        self.seen[key] = (columns, data, step)


def test_wandb_gets_an_image_and_a_table(figure):
    logger = Wandb()
    assert takes_figures(logger)
    log_figure(logger, "leep/figure", figure, step=3)
    log_text(logger, "leep/report", "*text*", step=4)
    (image,), step = logger.seen["leep/figure"]
    assert (image.ndim, image.shape[2], image.dtype, step) == (3, 3, np.uint8, 3)
    assert logger.seen["leep/report"] == (["report"], [["*text*"]], 4)


def test_mlflow_gets_artifacts_of_the_run(figure):
    class Client:
        def log_figure(self, run_id, figure, artifact_file):
            seen.append((run_id, artifact_file))

        def log_text(self, run_id, text, artifact_file):
            seen.append((run_id, text, artifact_file))

    seen, logger = [], SimpleNamespace(experiment=Client(), run_id="7")
    assert takes_figures(logger)
    log_figure(logger, "leep/figure", figure, step=3)
    log_text(logger, "leep/report", "*text*", step=4)
    assert seen == [("7", "leep/figure.png"), ("7", "*text*", "leep/report.md")]
