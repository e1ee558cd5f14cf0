"""Both import styles, configuration files, and the Trainer's other options."""

import lightning.pytorch
import pytest
import pytorch_lightning as pl
import torch
import yaml
from lightning.pytorch.cli import LightningCLI as LightningLightningCLI
from pytorch_lightning.cli import LightningCLI

from lightning_leep import LEEPCallback, StopWhenHopeless
from tests._helpers.small_transfer import (
    FEW_SCORES,
    C,
    Classifier,
    D,
    Data,
    LightningClassifier,
    Z,
    fit,
    make_source,
    train_loader,
    val_loader,
)

pytestmark = pytest.mark.usefixtures("no_forks")
slow = pytest.mark.slow
QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": 2,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.mark.parametrize("alone", [False, True], ids=["beside others", "alone"])
@pytest.mark.parametrize(
    "package",
    [pytest.param(pl, id="pytorch_lightning"), pytest.param(lightning.pytorch, id="lightning.pytorch", marks=slow)],
)
def test_trainer_of_either_package(package, alone, tmp_path):
    """Alone, and not in a list, is what the module configures and what the Trainer is given."""
    callback = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True)
    saver = package.callbacks.ModelCheckpoint(tmp_path, monitor="val_acc", mode="max")
    stopper = package.callbacks.EarlyStopping("val_acc", mode="max", stopping_threshold=0.1)

    class Module(Classifier if package is pl else LightningClassifier):
        def configure_callbacks(self):
            return callback if alone else []

    callbacks = StopWhenHopeless(0.1) if alone else [stopper, callback, saver]
    trainer = package.Trainer(callbacks=callbacks, **{**QUIET, "enable_checkpointing": not alone})
    trainer.fit(Module(), train_loader(), val_loader())
    assert isinstance(callback, package.Callback)
    assert callback in trainer.callbacks
    assert package.Trainer(callbacks=callback, **QUIET).callbacks.count(callback) == 1
    assert callback.report.num_samples == 50
    assert len(callback.curve) == (2 if alone else 1)  # stopped early
    assert trainer.callback_metrics["leep/predicted_accuracy"].item() == pytest.approx(callback.forecast.value)


class LightningData(lightning.pytorch.LightningDataModule):
    train_dataloader = Data.train_dataloader
    val_dataloader = Data.val_dataloader


def first_half(batch):
    """A function to split batches that a configuration file can name."""
    inputs, labels = batch
    return inputs[: len(inputs) // 2], labels[: len(inputs) // 2]


def scaled(inputs: torch.Tensor) -> torch.Tensor:
    """A source that a configuration file can name."""
    return inputs @ torch.arange(D * Z).reshape(D, Z).float()


CONFIGURATIONS = {
    "single": {"class_path": "lightning_leep.LEEPCallback", "init_args": {"monitor": "val_acc"}},
    "all options": [
        {
            "class_path": "lightning_leep.LEEPCallback",
            "init_args": {
                "source": {"class_path": "torch.nn.Linear", "init_args": {"in_features": D, "out_features": Z}},
                "num_target_classes": C,
                "max_samples": 30,
                "reference": [0.3, 0.4],
                "scoring": {
                    "ignore_index": -100,
                    "split_batch": "tests.callbacks.test_trainers.first_half",
                    "memory": "cpu",
                },
                "target_class_names": ["a", "b", "c"],
                "name": "linear",
                "strict": True,
            },
        },
        {
            "class_path": "lightning_leep.LEEPCallback",
            "init_args": {
                "source": "tests.callbacks.test_trainers.scaled",
                "scoring": {"class_path": "lightning_leep.ScoringOptions", "init_args": {"num_permutations": 0}},
                "reference": 0.5,
                "strict": True,
            },
        },
        {"class_path": "lightning_leep.StopWhenHopeless", "init_args": {"target": 0.01, "patience": 2}},
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(("style", "name"), [("pytorch_lightning", "all options"), ("lightning.pytorch", "single")])
def test_command_line(style, name, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"trainer": {**QUIET, "callbacks": CONFIGURATIONS[name]}}))
    if style == "pytorch_lightning":
        cli = LightningCLI(Classifier, Data, args=["fit", "--config", str(config)], save_config_callback=None)
    else:
        cli = LightningLightningCLI(
            LightningClassifier, LightningData, args=["fit", "--config", str(config)], save_config_callback=None
        )
    callbacks = [callback for callback in cli.trainer.callbacks if isinstance(callback, LEEPCallback)]
    assert [callback.log_name for callback in callbacks] == (["leep"] if name == "single" else ["linear", "leep"])
    for callback in callbacks:
        assert callback.report is not None
        assert len(callback.curve) == 2
    if name == "all options":
        reports = [callback.report for callback in callbacks]
        assert [report.num_samples for report in reports] == [15, 50]
        assert [report.memory for report in reports] == ["rows kept on the CPU", "rows kept where they were computed"]
        assert [report.permutation_p_value is None for report in reports] == [False, True]
        assert callbacks[0].reference.accuracy == (0.3, 0.4)
        assert callbacks[1].reference == 0.5


def test_no_training_no_score():
    for options in ({"max_epochs": 0}, {"limit_train_batches": 0}):
        callback = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True)
        fit(Classifier(), callback, **options)
        assert callback.report is None


@pytest.mark.slow
def test_progress_bar_follows_the_trainer(capsys):
    for shown in (False, True):
        callback = LEEPCallback(make_source(), scoring=FEW_SCORES, strict=True)
        fit(Classifier(), callback, enable_progress_bar=shown, profiler="simple", max_epochs=1)
        assert ("Scoring the source model" in capsys.readouterr().err) == shown
