"""The forecast: where it comes from, what is logged of it, that training does not notice."""

from dataclasses import replace

import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.fit.outlook import Outlook
from lightning_leep.callbacks.fit.trainer_facts import TrainerFacts
from lightning_leep.forecast import forecast_accuracy, forecast_convergence, update_forecast
from lightning_leep.records import AccuracyCurve, load_history, save_record
from tests._helpers.compared_training import plain_state
from tests._helpers.logged import Recording, events, series, texts
from tests._helpers.saved_history import save_earlier
from tests._helpers.simulated_transfers import make_record
from tests._helpers.small_transfer import Classifier, Scripted, fit, make_source, trained_state


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four epochs after a history of twelve transfers, read back from TensorBoard's files."""
    folder = tmp_path_factory.mktemp("forecast")
    history = save_earlier(folder / "history")
    board = TensorBoardLogger(folder)
    callback = LEEPCallback(make_source(), history=folder / "history", source_name="a small <net>", strict=True)
    fit(module := Classifier(), callback, logger=board, max_epochs=4, log_every_n_steps=1)
    return callback, history, trained_state(module), events(board.log_dir)


def values(board, tag):
    return [value for _, value in series(board, tag)]


@pytest.mark.slow
def test_forecast_is_that_of_report_and_history(run):
    callback, history, _, _ = run
    expected = forecast_accuracy(callback.report, history, trainable="all", test_size=40)
    assert callback.forecast == expected
    assert expected.num_records == 12


@pytest.mark.slow
def test_forecast_is_updated_after_each_validation(run):
    callback, history, _, board = run
    convergence = forecast_convergence(callback.report, history, trainable="all")
    for i in range(4):
        curve = AccuracyCurve(callback.curve.epochs[: i + 1], callback.curve.accuracy[: i + 1])
        running = update_forecast(callback.forecast, curve, max_epochs=4, convergence=convergence, test_size=40)
        for name, value in (("accuracy", running.value), ("low", running.low), ("high", running.high)):
            assert values(board, f"leep/running_{name}")[i] == pytest.approx(value)
    assert values(board, "leep/running_high")[-1] == pytest.approx(callback.curve.best)
    eta = dict(series(board, "leep/eta_epochs"))
    assert eta[series(board, "val_acc")[-1][0]] == 0  # it is over


#: Accuracies that rise, fall back and rise again.
UNEVEN = (0.4, 0.6, 0.7, 0.75, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8)


class EtaAfterEachValidation(pl.Callback):
    def __init__(self):
        self.shown = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.shown.append("leep/eta_epochs" in trainer.callback_metrics)


def test_epochs_to_go_are_logged_only_as_long_as_they_can_be_said():
    recording, look = Recording(), EtaAfterEachValidation()
    callback = LEEPCallback(make_source(), history=False, strict=True)
    epochs = len(UNEVEN)
    fit(
        Scripted(*UNEVEN),
        callback,
        look,
        logger=recording,
        max_epochs=epochs,
        limit_train_batches=1,
        log_every_n_steps=1,
    )
    steps = [step for step, _ in recording.of("leep/achieved_accuracy")]
    assert len(recording.of("leep/running_accuracy")) == epochs
    said = {step for step, _ in recording.of("leep/eta_epochs")}
    # Without earlier transfers the first two validations tell nothing of the pace.
    assert said.isdisjoint(steps[:2])
    assert look.shown == [step in said for step in steps]
    # They were said, and then not any more.
    assert any(before and not after for before, after in zip(look.shown, look.shown[1:], strict=False))


@pytest.mark.slow
def test_text_states_the_forecast_from_the_start_and_how_it_came_out(run):
    callback, history, _, board = run
    convergence = forecast_convergence(callback.report, history, trainable="all")
    start, end = texts(board)
    for text in (start, end):
        assert "`a small <net>`" in text
        assert callback.forecast.describe() in text
        assert convergence.describe() in text
    assert "Best accuracy" not in start
    assert "its interval" in end


@pytest.mark.slow
def test_figures_while_it_trains_and_at_the_end(run):
    _, _, _, board = run
    for tag in ("leep/predicted_vs_achieved", "leep/history", "leep/history_by_level"):
        first, last = board.Images(tag)
        assert first.step == 0 < last.step
        assert first.encoded_image_string != last.encoded_image_string


@pytest.mark.slow
def test_training_is_the_same_with_a_history_and_without(run):
    _, _, trained, _ = run
    assert trained == plain_state(max_epochs=4)


def test_without_comparable_transfers_the_probe_alone(tmp_path):
    """Of another part, or cut short, none teaches or is drawn."""
    save_earlier(tmp_path / "history", trainable="head")
    for record in save_earlier(tmp_path / "earlier"):
        save_record(replace(record, complete=False), tmp_path / "history")
    callback = LEEPCallback(make_source(), history=tmp_path / "history", strict=True)
    logger = TensorBoardLogger(tmp_path)
    fit(Classifier(), callback, logger=logger)
    assert callback.forecast.num_records == 0
    assert callback.forecast.value == callback.report.linear_probe_accuracy
    assert "leep/history" not in events(logger.log_dir).Tags()["images"]


def test_from_scratch_the_curve_alone_is_continued(tmp_path):
    history, board, recording = tmp_path / "history", TensorBoardLogger(tmp_path), Recording()
    save_earlier(history, size=2, trainable="scratch")
    callback = LEEPCallback(make_source(), history=history, trainable="scratch", strict=True)
    fit(Classifier(), callback, logger=[board, recording], max_epochs=5, log_every_n_steps=1)
    assert callback.forecast is None
    steps = [step for step, _ in recording.of("leep/achieved_accuracy")]
    assert [step for step, _ in recording.of("leep/running_accuracy")] == steps[2:]
    curve = AccuracyCurve(callback.curve.epochs[:3], callback.curve.accuracy[:3])
    running = update_forecast(None, curve, max_epochs=5, test_size=40)
    assert recording.of("leep/running_high")[0][1] == pytest.approx(running.high)
    logged = {tag for _, metrics in recording.records for tag in metrics}
    assert not {tag for tag in logged if "predict" in tag}
    assert "leep/history" not in events(board.log_dir).Tags()["images"]
    assert len(load_history(history).filter(trainable="scratch")) == 3


def test_expected_curve_ends_with_the_run(tmp_path):
    history = save_earlier(tmp_path, epochs=6)
    report = history[0].report
    forecast = forecast_accuracy(report, history, trainable="all")
    convergence = forecast_convergence(report, history, trainable="all")
    outlook = Outlook(accuracy=forecast, convergence=convergence, facts=TrainerFacts(max_epochs=4))
    assert outlook.expected.epochs == (1, 2, 3, 4)
    assert outlook.expected.mean == convergence.accuracy(forecast).mean[:4]
    assert Outlook(accuracy=forecast, convergence=convergence).expected.epochs[-1] == 6
    assert Outlook(accuracy=forecast).expected is None


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_records_from_scratch_are_references_of_others(tmp_path):
    for record in save_earlier(tmp_path / "plain"):
        save_record(replace(record, target_name="shapes"), tmp_path / "history")
    scratch = AccuracyCurve((1, 2, 3, 4), (0.1, 0.2, 0.3, 0.4))
    save_record(
        make_record(report=record.report, curve=scratch, trainable="scratch", target_name="shapes"),
        tmp_path / "history",
    )

    recording = TensorBoardLogger(tmp_path)
    fit(Classifier(), LEEPCallback(make_source(), history=tmp_path / "history", strict=True), logger=recording)
    text = texts(events(recording.log_dir))[0]
    # Half of the best accuracy after one epoch, when training from scratch has 0.1.
    assert "above scratch by epoch 1" in text
