"""What reaches TensorBoard, other loggers and other callbacks."""

import csv
import logging
import warnings
from pathlib import Path

import lightning.pytorch.loggers
import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.logger import DummyLogger

from lightning_leep import LEEPCallback, ScoringOptions
from lightning_leep.records import load_history
from tests._helpers.logged import Recording, events, series, texts
from tests._helpers.small_transfer import FEW_SCORES, Classifier, fit, make_source


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three epochs into TensorBoard, by the logger of the other package, and a logger of the user's own."""
    board, recording = lightning.pytorch.loggers.TensorBoardLogger(tmp_path_factory.mktemp("run")), Recording()
    callback = LEEPCallback(make_source(), reference=[0.3, 0.4, 0.5], strict=True, target_class_names=["a", "b", "c"])
    trainer = fit(Classifier(), callback, logger=[board, recording], max_epochs=3, log_every_n_steps=1)
    return callback, trainer, events(board.log_dir), recording


def known_before(callback) -> dict[str, float]:
    forecast = callback.forecast
    return {
        "leep/predicted_accuracy": forecast.value,
        "leep/predicted_low": forecast.low,
        "leep/predicted_high": forecast.high,
    }


def test_forecast_before_the_first_step(run):
    callback, trainer, board, recording = run
    step, first = recording.records[0]
    assert (step, first) == (0, known_before(callback))
    for tag, value in first.items():
        assert series(board, tag)[0] == (0, pytest.approx(value))
        assert trainer.callback_metrics[tag].item() == pytest.approx(value)


def test_achieved_beside_predicted_at_the_steps_of_the_monitored_value(run):
    callback, trainer, board, recording = run
    predicted = callback.forecast.value
    measured = series(board, "val_acc")
    assert len(measured) == 3
    assert series(board, "leep/achieved_accuracy") == measured
    assert [value for _, value in measured] == pytest.approx(list(callback.curve.accuracy))
    steps = [step for step, _ in measured]
    for tag, value in known_before(callback).items():  # drawn as lines
        assert series(board, tag) == [(step, pytest.approx(value)) for step in [0, *steps]]
    best = [max(callback.curve.accuracy[: i + 1]) for i in range(3)]
    assert series(board, "leep/best_accuracy") == [(s, pytest.approx(b)) for s, b in zip(steps, best, strict=True)]
    errors = [v for _, v in series(board, "leep/prediction_error")]
    assert errors == pytest.approx([b - predicted for b in best], abs=1e-6)
    assert series(board, "leep/reference_accuracy") == [
        (step, pytest.approx(level)) for step, level in zip(steps, [0.3, 0.4, 0.5], strict=True)
    ]
    difference = [a - level for (_, a), level in zip(measured, [0.3, 0.4, 0.5], strict=True)]
    assert [v for _, v in recording.of("leep/difference_to_reference")] == pytest.approx(difference)
    assert trainer.callback_metrics["leep/achieved_accuracy"].item() == pytest.approx(measured[-1][1])


def test_achieved_is_logged_before_what_is_computed_from_it(run):
    records = [metrics for _, metrics in run[3].records]
    achieved = [i for i, metrics in enumerate(records) if "leep/achieved_accuracy" in metrics]
    assert all(records[i].keys() == {"leep/achieved_accuracy"} for i in achieved)
    assert [i + 1 for i in achieved] == [i for i, metrics in enumerate(records) if "leep/best_accuracy" in metrics]


def test_tags_are_few_the_same_for_other_callbacks_and_logged_once(run):
    _, trainer, board, recording = run
    logged = {tag for _, metrics in recording.records for tag in metrics if tag.startswith("leep")}
    assert logged == {tag for tag in board.Tags()["scalars"] if tag.startswith("leep")}
    assert {tag.split("/")[0] for tag in logged} == {"leep"}
    assert len(logged) <= 12
    assert {tag for tag in trainer.callback_metrics if tag.startswith("leep")} == logged
    seen = [(step, tag) for step, metrics in recording.records for tag in metrics if tag in logged]
    assert len(seen) == len(set(seen))


def test_figures(run):
    tags = run[2].Tags()
    of_classes = {"leep_source_classes/association", "leep_source_classes/strongest"}
    assert {"leep/layers", "leep/predicted_vs_achieved"} | of_classes == set(tags["images"])


class Tuned(Classifier):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"rate": 0.1})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The loggers of a run with the callback, and of one without: a CSV file, TensorBoard, one's own and none."""
    folder = tmp_path_factory.mktemp("runs")
    callback = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True)
    loggers = [[CSVLogger(folder), pl.loggers.TensorBoardLogger(folder), Recording(), DummyLogger()] for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_leep.callbacks.fit.logs.takes_figures", lambda logger: False)
        for used, callbacks in zip(loggers, ([callback], []), strict=True):
            fit(Tuned(), *callbacks, logger=used, log_every_n_steps=1)
    return callback, *loggers


def test_csv(runs):
    callback, (logger, *_), _ = runs
    with Path(logger.log_dir, "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    column = [float(row["leep/achieved_accuracy"]) for row in rows if row["leep/achieved_accuracy"]]
    assert column == pytest.approx(list(callback.curve.accuracy))
    predicted = {float(row["leep/predicted_accuracy"]) for row in rows if row["leep/predicted_accuracy"]}
    assert predicted == {callback.forecast.value}


def test_hparams_are_those_of_a_run_without(runs):
    _, (_, board, *_), (_, plain, *_) = runs
    written = events(board.log_dir).PluginTagToContent("hparams")
    assert written
    assert written == events(plain.log_dir).PluginTagToContent("hparams")


def test_the_users_own_values_are_logged_as_without(runs):
    _, (_, _, recording, _), (_, _, plain, _) = runs
    kept = [(s, {t: v for t, v in m.items() if not t.startswith("leep")}) for s, m in recording.records]
    assert [(step, metrics) for step, metrics in kept if metrics] == plain.records


def test_checkpoints_and_early_stopping_can_watch_what_is_known(tmp_path):
    saver = pl.callbacks.ModelCheckpoint(
        tmp_path,
        monitor="leep/achieved_accuracy",
        mode="max",
        filename="{leep/predicted_accuracy:.4f}",
        auto_insert_metric_name=False,
    )
    stopper = pl.callbacks.EarlyStopping("leep/predicted_accuracy", patience=1, mode="max")
    callback = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True)
    trainer = fit(Classifier(), callback, stopper, saver, enable_checkpointing=True, max_epochs=5)
    assert trainer.current_epoch == 2  # a prediction never improves
    assert saver.best_model_score.item() == pytest.approx(callback.curve.best)
    assert f"{callback.forecast.value:.4f}" in saver.best_model_path


@pytest.mark.usefixtures("no_figures")
def test_everything_carries_the_prefix_of_the_logger(tmp_path):
    logger = pl.loggers.TensorBoardLogger(tmp_path, prefix="fold1")
    fit(Classifier(), LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True), logger=logger)
    tags = events(logger.log_dir).Tags()
    ours = [tag for kind in ("scalars", "images", "tensors") for tag in tags[kind] if "leep" in tag]
    assert {"fold1-leep/best_accuracy", "fold1-leep/report/text_summary"} <= set(ours)
    assert all(tag.startswith("fold1-leep") for tag in ours)


def broken(inputs):
    raise RuntimeError("the source has no <weights>")


def test_a_pass_that_could_not_be_made_is_seen_with_warnings_switched_off(tmp_path, caplog):
    leep, logger = LEEPCallback(broken), pl.loggers.TensorBoardLogger(tmp_path)
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("ignore")
        fit(Classifier(), leep, logger=logger)
    assert leep.report is None
    assert any("could not score the source model" in message for message in caplog.messages)
    (text,) = texts(events(logger.log_dir))
    assert text.startswith("**Not scored.**")
    assert "the source has no &#60;weights&#62;" in text
    assert "arguments of LEEPCallback" in text


def test_a_source_without_a_head_has_no_leep_and_everything_else(tmp_path, caplog):
    history, board = tmp_path / "history", pl.loggers.TensorBoardLogger(tmp_path)
    for logger in (False, board):  # the second one has a history to draw
        scoring = ScoringOptions(head=False)
        callback = LEEPCallback(make_source()[:-2], scoring=scoring, history=history, strict=True)
        with caplog.at_level(logging.INFO):
            trainer = fit(Classifier(), callback, logger=logger)
    assert callback.report.leep is None
    assert callback.report.num_features == 8
    assert callback.forecast.value == callback.report.multi_layer_probe_accuracy  # all layers are trained
    assert trainer.callback_metrics["leep/predicted_accuracy"].item() == pytest.approx(callback.forecast.value)
    tags = events(board.log_dir).Tags()
    assert "leep/predicted_accuracy" in tags["scalars"]
    assert "leep/layers" in tags["images"]
    assert "leep/history" not in tags["images"]  # whose axis is LEEP
    assert any("no LEEP, since it has no head" in message for message in caplog.messages)
    assert [record.report.leep for record in load_history(history)] == [None, None]
