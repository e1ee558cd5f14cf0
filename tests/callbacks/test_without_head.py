"""A fit whose source has no head: no LEEP is logged, everything else is, and the record says so."""

import logging

import pytest
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_leep import LEEPCallback, ScoringOptions
from lightning_leep.records import load_history
from tests._helpers.small_transfer import Classifier, fit, make_source
from tests.callbacks.fit.test_logs import events


@pytest.mark.slow
def test_fit_logs_and_records_what_there_is(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        for run in range(2):  # the second one has a history to draw
            callback = LEEPCallback(
                make_source()[:-2], scoring=ScoringOptions(head=False), history=tmp_path / "history", strict=True
            )
            trainer = fit(Classifier(), callback, max_epochs=2, logger=TensorBoardLogger(tmp_path / str(run)))
    assert callback.report.leep is None
    assert callback.report.num_features == 8
    assert callback.forecast.value == callback.report.multi_layer_probe_accuracy  # all layers are trained
    assert trainer.callback_metrics["leep/predicted_accuracy"].item() == pytest.approx(callback.forecast.value)
    board = events(trainer.logger.log_dir)
    assert "leep/predicted_accuracy" in board.Tags()["scalars"]
    assert any("no LEEP, since it has no head" in message for message in caplog.messages)
    assert [record.report.leep for record in load_history(tmp_path / "history")] == [None, None]
