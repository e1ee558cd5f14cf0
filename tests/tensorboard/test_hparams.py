"""The HPARAMS tab, asked for its table as TensorBoard's page asks for it."""

from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as ExperimentHandler
from tensorboard.plugins.hparams.list_session_groups import Handler as SessionGroupsHandler

from lightning_leep.tensorboard import (
    declare_hparams,
    hparam_tags,
    lightning_logs_hparams,
    log_hparams,
    saved_hparams,
)

FINAL = {tag: 0.01 * (i + 1) for i, tag in enumerate(hparam_tags())}


@dataclass
class Schedule:
    warmup: int = 5
    kind: str = "cosine"


class Model(BoringModel):
    def __init__(self, lr=0.25, optimizer=None, saved=True, metric=None):
        super().__init__()
        if saved is not None:
            self.save_hyperparameters("lr", "optimizer", logger=saved)
        self.metric = metric

    def on_train_start(self):
        if self.metric:
            self.logger.log_hyperparams({"lr": 0.25}, self.metric)


class Columns(pl.Callback):
    """The two calls, where a callback makes them."""

    def on_fit_start(self, trainer, pl_module):
        if lightning_logs_hparams(trainer):
            declare_hparams(trainer.logger, {**saved_hparams(trainer), "leep/source": "resnet"}, hparam_tags())

    def on_fit_end(self, trainer, pl_module):
        trainer.logger.log_metrics(dict.fromkeys(FINAL, 0.0), step=0)
        trainer.logger.log_metrics(FINAL, step=1)
        log_hparams(trainer.logger, {**saved_hparams(trainer), "leep/source": "resnet"}, hparam_tags())


def fit(folder, model, callbacks=(), version="run", **options):
    logger = TensorBoardLogger(folder, name="", version=version, **options)
    trainer = pl.Trainer(
        max_steps=1,
        logger=logger,
        callbacks=list(callbacks),
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(model)
    return trainer


def table(folder):
    """Columns of the tab, and for each run its hyper-parameters and metrics."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context, request = Context(TBContext(data_provider=provider, logdir=str(folder))), RequestContext()
    experiment = ExperimentHandler(request, context, "", api_pb2.GetExperimentRequest()).run()
    columns = [info.name for info in experiment.hparam_infos], [info.name.tag for info in experiment.metric_infos]
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_RUNNING, api_pb2.STATUS_UNKNOWN]
    query = api_pb2.ListSessionGroupsRequest(allowed_statuses=statuses, slice_size=100)
    groups = SessionGroupsHandler(request, context, "", query).run().session_groups
    rows = {
        group.name: (
            {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()},
            {metric.name.tag: metric.value for metric in group.metric_values},
        )
        for group in groups
    }
    return *columns, rows


def test_final_values_stand_beside_hp_metric(tmp_path):
    fit(tmp_path, Model(), [Columns()])
    hparams, metrics, rows = table(tmp_path)
    assert sorted(hparams) == ["leep/source", "lr", "optimizer"]
    assert metrics == ["hp_metric", *hparam_tags()]
    assert rows["run"][0] == {"lr": 0.25, "optimizer": "None", "leep/source": "resnet"}
    assert rows["run"][1] == pytest.approx({"hp_metric": -1.0, **FINAL})


def test_two_runs_have_a_row_each(tmp_path):
    fit(tmp_path, Model(lr=0.5), [Columns()], version="a")
    fit(tmp_path, Model(lr=0.125), [Columns()], version="b")
    rows = table(tmp_path)[2]
    assert {name: hparams["lr"] for name, (hparams, _) in rows.items()} == {"a": 0.5, "b": 0.125}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("options", [{"default_hp_metric": False}, {}])
def test_the_users_own_metrics_are_left_alone(tmp_path, options):
    # Without `save_hyperparameters` Lightning writes nothing, whatever `default_hp_metric` is.
    saved = True if options else None
    fit(tmp_path / "without", Model(metric={"mine": 0.5}, saved=saved), **options)
    fit(tmp_path / "with", Model(metric={"mine": 0.5}, saved=saved), [Columns()], **options)
    assert table(tmp_path / "with") == table(tmp_path / "without")
    assert table(tmp_path / "with")[1] == ["mine"]


def test_the_users_hp_metric_is_shown(tmp_path):
    class Final(Columns):
        def on_fit_end(self, trainer, pl_module):
            super().on_fit_end(trainer, pl_module)
            trainer.logger.log_metrics({"hp_metric": 0.5}, step=2)

    fit(tmp_path, Model(), [Final()])
    assert table(tmp_path)[2]["run"][1]["hp_metric"] == 0.5


def test_switched_off_hp_metric_stays_off(tmp_path):
    fit(tmp_path, Model(), [Columns()], default_hp_metric=False)
    _, metrics, rows = table(tmp_path)
    assert metrics == hparam_tags()
    assert rows["run"][1] == pytest.approx(FINAL)


@pytest.mark.parametrize("saved", [None, False])
def test_a_module_that_does_not_log_hyperparameters_shows_none(tmp_path, saved):
    fit(tmp_path, Model(saved=saved), [Columns()])
    hparams, metrics, rows = table(tmp_path)
    assert (hparams, metrics) == (["leep/source"], hparam_tags())  # no empty column of `hp_metric`
    assert rows["run"][1] == pytest.approx(FINAL)


def test_a_module_with_nothing_to_save_has_a_row(tmp_path):
    class Bare(BoringModel):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters()

    fit(tmp_path, Bare(), [Columns()])
    assert table(tmp_path)[1] == ["hp_metric", *hparam_tags()]


def test_a_run_that_was_interrupted_has_its_row(tmp_path):
    class Interrupted(Columns):
        def on_fit_end(self, trainer, pl_module):
            trainer.logger.log_metrics(FINAL, step=0)

    fit(tmp_path, Model(), [Interrupted()])
    assert table(tmp_path)[2]["run"][1] == pytest.approx({"hp_metric": -1.0, **FINAL})


def test_a_second_fit_with_the_same_logger_keeps_the_row(tmp_path):
    trainer = fit(tmp_path, Model(), [Columns()])
    trainer.fit_loop.epoch_loop.max_steps = 2
    trainer.fit(Model())
    assert list(table(tmp_path)[2]) == ["run"]


def test_hyperparameters_are_those_that_lightning_alone_would_show(tmp_path):
    optimizer = {
        "name": "sgd",
        "nesterov": True,
        "betas": (0.9, 0.99),
        "nothing": None,
        "layer": torch.nn.Linear,
        "space": Namespace(depth=3, deeper={"x": 1.5}),
        "schedule": Schedule(),
        "steps": [{"a": 1}, {"b": 2}],
        "sizes": [1, 2],
        "empty": {},
        "nobody": [],
        "numpy": np.float32(0.5),
        "flag": np.bool_(True),
        "array": np.arange(3),
        "tensor": torch.tensor([0.75]),
        "matrix": torch.eye(2),
        3: "three",
    }
    fit(tmp_path / "without", Model(optimizer=optimizer))
    fit(tmp_path / "with", Model(optimizer=optimizer), [Columns()])
    alone, both = (table(tmp_path / name)[2]["run"][0] for name in ("without", "with"))
    assert both.pop("leep/source") == "resnet"
    if "optimizer/steps" in alone:  # Lightning 2.4 names a list of dictionaries as a whole, later ones by its items
        lists = ("optimizer/steps", "optimizer/nobody")
        both, alone = ({k: v for k, v in row.items() if not k.startswith(lists)} for row in (both, alone))
    assert both == alone
    assert len(both) > 15


def test_datamodule_counts_as_well(tmp_path):
    class Data(pl.LightningDataModule):
        def __init__(self, size=16):
            super().__init__()
            self.save_hyperparameters()
            self.save_hyperparameters({"_class_path": "package.Data"})  # as LightningCLI does

    trainer = pl.Trainer(logger=False)
    trainer.strategy.connect(Model())
    trainer.datamodule = Data()
    assert saved_hparams(trainer) == {"lr": 0.25, "optimizer": None, "size": 16}


def test_other_loggers_are_passed_over(tmp_path):
    for logger in (CSVLogger(tmp_path), object()):
        declare_hparams(logger, {"lr": 0.1}, hparam_tags())
        log_hparams(logger, {"lr": 0.1}, hparam_tags())
    assert not list(tmp_path.rglob("events*"))
