"""A pass that could not be made is seen by somebody who has switched warnings off; loggers with a prefix."""

import logging
import warnings

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_leep import LEEPCallback
from tests._helpers.small_transfer import Classifier, fit, make_source


def broken(inputs):
    raise RuntimeError("the source has no <weights>")


def test_the_log_and_the_text_panel_say_why_and_what_to_pass(tmp_path, caplog):
    leep, logger = LEEPCallback(broken), TensorBoardLogger(tmp_path)
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("ignore")
        fit(Classifier(), leep, logger=logger)
    assert leep.report is None
    assert any("could not score the source model" in record.getMessage() for record in caplog.records)
    events = EventAccumulator(logger.log_dir).Reload()
    (panel,) = events.Tensors("leep/report/text_summary")
    text = panel.tensor_proto.string_val[0].decode()
    assert text.startswith("**Not scored.**")
    assert "the source has no &#60;weights&#62;" in text
    assert "arguments of LEEPCallback" in text


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["fold1", ""])
def test_everything_carries_the_prefix_of_the_logger(tmp_path, prefix):
    logger = TensorBoardLogger(tmp_path, prefix=prefix)
    fit(Classifier(), LEEPCallback(make_source(), strict=True), logger=logger)
    tags = EventAccumulator(logger.log_dir).Reload().Tags()
    before = f"{prefix}-" if prefix else ""
    ours = [tag for kind in ("scalars", "images", "tensors") for tag in tags[kind] if "leep" in tag]
    assert f"{before}leep/best_accuracy" in ours
    assert f"{before}leep/report/text_summary" in ours
    assert all(tag.startswith(f"{before}leep") for tag in ours)
