"""The HPARAMS tab of runs with the callback, asked for its table as TensorBoard's page asks for it."""

from argparse import Namespace
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import lightning.pytorch.loggers
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as ExperimentHandler
from tensorboard.plugins.hparams.list_session_groups import Handler as SessionGroupsHandler

from lightning_leep import LEEPCallback
from lightning_leep.tensorboard.hparams import log_hparams, widen_hparams
from lightning_leep.tensorboard.scalars import hparam_tags
from tests._helpers.small_transfer import Classifier, make_source, make_trainer, train_loader, val_loader

pytestmark = pytest.mark.usefixtures("no_figures")


@dataclass
class Schedule:
    warmup: int = 5
    kind: str = "cosine"


def log_own(logger):
    """What a user writes who wants a row of their own."""
    logger.log_hyperparams({"mine": 7}, {"my_metric": 0.5})


class Model(Classifier):
    """A module that saves hyper-parameters, and calls a function with its logger in one of its hooks."""

    def __init__(self, lr=0.25, optimizer=None, saved=True, moment=None, log=log_own):
        super().__init__()
        if saved is not None:
            self.save_hyperparameters("lr", "optimizer", logger=saved)
        self.moment, self.log_own = moment, log

    def _at(self, moment):
        if moment == self.moment:
            self.log_own(self.logger)

    def on_fit_start(self):
        self._at("on_fit_start")

    def on_train_end(self):
        self._at("on_train_end")


class Falling(Model):
    """Best after its first epoch."""

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", torch.tensor(0.6 - 0.2 * self.current_epoch))


class Logs(pl.Callback):
    """A callback of the user's, after ours, that logs a row."""

    def on_fit_start(self, trainer, pl_module):
        log_own(trainer.logger)


def leep(**kwargs):
    return LEEPCallback(make_source(), history=False, source_name="resnet", strict=True, **kwargs)


def fit(folder, model, callbacks=(), version="run", kind=TensorBoardLogger, max_epochs=2, **options):
    logger = kind(folder, name="", version=version, **options)
    pl.seed_everything(7)
    make_trainer(*callbacks, logger=logger, max_epochs=max_epochs).fit(model, train_loader(), val_loader())
    return logger


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", [TensorBoardLogger, lightning.pytorch.loggers.TensorBoardLogger])
def test_predicted_and_best_stand_beside_hp_metric(tmp_path, kind):
    callback = leep()
    fit(tmp_path, Falling(), [callback], kind=kind)
    hparams, metrics, rows = table(tmp_path)
    assert sorted(hparams) == ["leep/source", "leep/trainable", "lr", "optimizer"]
    assert metrics == ["hp_metric", *hparam_tags()]
    assert metrics[1:4] == ["leep/predicted_accuracy", "leep/best_accuracy", "leep/prediction_error"]
    assert rows["run"][0] == {"lr": 0.25, "optimizer": "None", "leep/source": "resnet", "leep/trainable": "all"}
    value, shown = callback.forecast.value, rows["run"][1]
    assert [shown[tag] for tag in metrics[:4]] == pytest.approx([-1, value, 0.6, 0.6 - value])
    assert shown["leep/achieved_accuracy"] == pytest.approx(0.4)
    assert shown["leep/leep"] == pytest.approx(callback.report.leep)


@pytest.mark.slow
def test_two_runs_have_a_row_each(tmp_path):
    fit(tmp_path, Model(lr=0.5), [leep()], version="a")
    fit(tmp_path, Model(lr=0.125), [leep()], version="b")
    rows = table(tmp_path)[2]
    assert {name: hparams["lr"] for name, (hparams, _) in rows.items()} == {"a": 0.5, "b": 0.125}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


#: Where a row that Lightning writes by itself has come first.
LATER = ("on_train_end", "after")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "default", "saved"),
    [
        ("before", True, True),
        ("before", False, None),
        ("on_fit_start", True, True),
        ("callback", True, None),
        ("on_train_end", True, True),
        ("on_train_end", True, None),
        ("after", True, True),
        ("after", True, None),
        ("after", False, True),
    ],
)
def test_what_the_user_logs_is_shown_as_without_the_callback(tmp_path, moment, default, saved):
    for name, callbacks in (("without", []), ("with", [leep()])):
        own = [Logs()] if moment == "callback" else []
        kind = TensorBoardLogger
        if moment == "before":

            def kind(*args, **kwargs):
                logger = TensorBoardLogger(*args, **kwargs)
                log_own(logger)
                return logger

        logger = fit(
            tmp_path / name,
            Model(saved=saved, moment=moment),
            [*callbacks, *own],
            kind=kind,
            max_epochs=1,
            default_hp_metric=default,
        )
        if moment == "after":
            log_own(logger)
        logger.finalize("success")
    (hparams, metrics, rows), after = table(tmp_path / "without"), table(tmp_path / "with")
    if default and saved and moment in LATER:  # Lightning's own row wins, to which columns are added
        assert "mine" not in hparams
        assert set(hparams) < set(after[0])
        assert set(metrics) < set(after[1])
        for shown, wider in zip(rows["run"], after[2]["run"], strict=True):
            assert shown.items() < wider.items()
    elif default and not saved and moment == "after":  # the callback has written the row that nobody had
        assert (set(after[0]), after[1]) == ({"leep/source", "leep/trainable"}, hparam_tags())
    else:
        assert (hparams, metrics) == (["mine"], ["my_metric"])
        assert after == (hparams, metrics, rows)


@pytest.mark.slow
def test_hyperparameters_that_the_user_logs_without_metrics_are_shown(tmp_path):
    model = Model(moment="on_fit_start", log=lambda logger: logger.log_hyperparams(Namespace(mine=7)))
    fit(tmp_path, model, [leep()])
    hparams, metrics, rows = table(tmp_path)
    assert set(hparams) == {"mine", "leep/source", "leep/trainable"}
    assert metrics == ["hp_metric", *hparam_tags()]
    assert rows["run"][0]["mine"] == 7


@pytest.mark.slow
def test_a_logger_that_writes_rows_in_a_way_of_its_own_is_left_to_it(tmp_path):
    class Own(TensorBoardLogger):
        def log_hyperparams(self, params, metrics=None, step=None):
            if metrics:
                super().log_hyperparams(params, metrics)

    for moment in ("on_fit_start", "on_train_end"):
        folder = tmp_path / moment
        fit(folder, Model(moment=moment), [leep()], kind=Own)
        assert table(folder)[:2] == (["mine"], ["my_metric"])


@pytest.mark.slow
@pytest.mark.parametrize("saved", [None, False])
def test_a_run_in_which_nobody_wrote_a_row_has_one(tmp_path, saved):
    callback = leep()
    fit(tmp_path, Model(saved=saved), [callback])
    hparams, metrics, rows = table(tmp_path)
    assert metrics == hparam_tags()
    assert rows["run"][0] == {"leep/source": "resnet", "leep/trainable": "all"}
    assert set(hparams) == set(rows["run"][0])
    assert rows["run"][1]["leep/predicted_accuracy"] == pytest.approx(callback.forecast.value)
    assert rows["run"][1]["leep/best_accuracy"] == pytest.approx(callback.curve.best)


@pytest.mark.slow
def test_where_rows_are_left_to_the_user_one_line_writes_one(tmp_path):
    callback = leep()
    logger = fit(tmp_path, Model(), [callback], default_hp_metric=False)
    assert table(tmp_path) == ([], [], {})
    log_hparams(logger, {"lr": 0.1}, hparam_tags())
    logger.finalize("success")
    hparams, metrics, rows = table(tmp_path)
    assert (hparams, metrics) == (["lr"], hparam_tags())
    assert rows["run"][1]["leep/best_accuracy"] == pytest.approx(callback.curve.best)


@pytest.mark.slow
def test_the_users_hp_metric_is_shown(tmp_path):
    model = Model(moment="on_train_end", log=lambda logger: logger.log_metrics({"hp_metric": 0.5}, step=99))
    fit(tmp_path, model, [leep()])
    assert table(tmp_path)[2]["run"][1]["hp_metric"] == 0.5


@pytest.mark.slow
def test_two_callbacks_have_columns_each(tmp_path):
    fit(tmp_path, Model(), [leep(), leep()])
    hparams, metrics, _ = table(tmp_path)
    assert metrics == ["hp_metric", *hparam_tags(), *hparam_tags("leep_2/")]
    assert {"leep/source", "leep_2/source"} <= set(hparams)


@pytest.mark.slow
def test_a_run_that_breaks_off_has_its_row(tmp_path):
    class BreaksOff(Model):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                raise ArithmeticError

    callback = leep()
    with pytest.raises(ArithmeticError):
        fit(tmp_path, BreaksOff(), [callback])
    assert table(tmp_path)[2]["run"][1]["leep/best_accuracy"] == pytest.approx(callback.curve.best)


@pytest.mark.slow
def test_a_second_fit_with_the_same_logger_keeps_the_row(tmp_path):
    logger = fit(tmp_path, Model(), [leep()])
    make_trainer(leep(), logger=logger).fit(Model(lr=0.5), train_loader(), val_loader())
    rows = table(tmp_path)[2]
    assert [hparams["lr"] for hparams, _ in rows.values()] == [0.25]


@pytest.mark.slow
def test_the_logger_is_left_as_it_was(tmp_path):
    def fail(logger):
        raise ArithmeticError

    def left(version, model, **options):
        logger = TensorBoardLogger(tmp_path, name="", version=version)
        trainer = make_trainer(leep(), logger=logger, **options)
        with suppress(ArithmeticError):
            trainer.fit(model, train_loader(), val_loader())
        return vars(logger)

    for i, saved in enumerate((True, None)):
        assert "log_hyperparams" not in left(f"fit{i}", Model(saved=saved))
        assert "log_hyperparams" not in left(f"nothing{i}", Model(saved=saved), max_epochs=0)
        assert "log_hyperparams" not in left(f"fault{i}", Model(saved=saved, moment="on_fit_start", log=fail))


@pytest.mark.slow
def test_a_fault_is_contained(tmp_path, monkeypatch):
    def fail(hparams):
        raise ArithmeticError("no column")

    monkeypatch.setattr("lightning_leep.tensorboard.hparams.flatten_hparams", fail)
    callback = LEEPCallback(make_source(), history=False)
    with pytest.warns(UserWarning, match="could not add HPARAMS to TensorBoardLogger: ArithmeticError: no column"):
        fit(tmp_path, Model(), [callback])
    assert table(tmp_path)[1] == ["hp_metric"]  # Lightning's own
    assert len(callback.curve) == 2


@pytest.mark.slow
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
    fit(tmp_path / "with", Model(optimizer=optimizer), [leep()])
    alone, both = (table(tmp_path / name)[2]["run"][0] for name in ("without", "with"))
    assert both.pop("leep/source") == "resnet"
    assert both.pop("leep/trainable") == "all"
    if "optimizer/steps" in alone:  # Lightning 2.4 names a list of dictionaries as a whole, later ones by its items
        lists = ("optimizer/steps", "optimizer/nobody")
        both, alone = ({k: v for k, v in row.items() if not k.startswith(lists)} for row in (both, alone))
    assert both == alone
    assert len(both) > 15


@pytest.mark.slow
def test_datamodule_counts_as_well(tmp_path):
    class Data(pl.LightningDataModule):
        def __init__(self, size=16):
            super().__init__()
            self.save_hyperparameters()
            self.save_hyperparameters({"_class_path": "package.Data"})  # as LightningCLI does

        def train_dataloader(self):
            return train_loader()

        def val_dataloader(self):
            return val_loader()

    logger = TensorBoardLogger(tmp_path, name="", version="run")
    make_trainer(leep(), logger=logger).fit(Model(), datamodule=Data())
    shown = set(table(tmp_path)[0]) - {"_class_path"}  # which Lightning 2.4 shows, and later ones do not
    assert shown == {"lr", "optimizer", "size", "leep/source", "leep/trainable"}


def test_other_loggers_are_passed_over(tmp_path):
    for logger in (CSVLogger(tmp_path), object()):
        take_back = widen_hparams(logger, {"lr": 0.1}, hparam_tags())
        log_hparams(logger, {"lr": 0.1}, hparam_tags())
        partial(getattr(logger, "log_hyperparams", lambda params: None), {"lr": 0.5})()
        take_back()
    assert not list(tmp_path.rglob("events*"))
