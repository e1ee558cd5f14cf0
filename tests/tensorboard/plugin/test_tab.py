"""The tab of TensorBoard: what the callback writes is read by TensorBoard's own readers and served by the plugin."""

import copy
import json
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.application import TensorBoardWSGI
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.util.tensor_util import make_tensor_proto
from werkzeug.test import Client

from lightning_leep import LEEPCallback
from lightning_leep.callbacks.fault_barrier import FaultBarrier
from lightning_leep.callbacks.fit.logs import RunLogs
from lightning_leep.records import AccuracyCurve
from lightning_leep.records.ranking import RankedSource, Ranking
from lightning_leep.tensorboard.plugin import PLUGIN_NAME
from lightning_leep.tensorboard.plugin.tab import FILES, TransferPlugin
from lightning_leep.tensorboard.writer import log_transfer
from tests._helpers.simulated_transfers import make_record
from tests._helpers.small_transfer import Classifier, fit, make_source
from tests._helpers.tensorboard_server import tensorboard

ROUTES = f"/data/plugin/{PLUGIN_NAME}"
CONTENT = {"record": make_record(source_name="resnet").to_dict(), "ended": True}


def plugin_of(folder) -> TransferPlugin:
    multiplexer = EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: 10}).AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    return TransferPlugin(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))


def asked(folder, route="/transfers"):
    return Client(TensorBoardWSGI([plugin_of(folder)])).get(f"{ROUTES}{route}")


def write(folder, value, tag="leep/transfer"):
    """An event of the plugin's name with any tensor in it."""
    logger = TensorBoardLogger(folder, name="", version="run")
    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME), data_class=DATA_CLASS_TENSOR
    )
    summary = Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto(value))])
    logger.experiment._get_file_writer().add_summary(summary, 0)
    logger.experiment.close()


@pytest.mark.usefixtures("no_figures")
def test_a_fit_with_two_callbacks_is_shown_with_all_that_is_known(tmp_path):
    ranking = Ranking(sources=(RankedSource(name="resnet"),), by="head", trainable=("head",), num_samples=9)
    options = {"strict": True, "history": False, "ranking": ranking, "target_class_names": ["a", "<b>", "c"]}
    callbacks = [LEEPCallback(make_source(seed), **options) for seed in (1, 2)]
    fit(Classifier(), *callbacks, logger=TensorBoardLogger(tmp_path, name="digits", version="v0"))
    answer = asked(tmp_path).get_json()
    assert answer["problems"] == []
    assert answer["rankings"] == [ranking.to_dict()]
    assert [transfer["run"] for transfer in answer["transfers"]] == ["digits/v0", "digits/v0 leep_2"]
    for transfer, callback in zip(answer["transfers"], callbacks, strict=True):
        assert transfer["last_written"] is None
        assert transfer["curve"] == [[1, 2], [pytest.approx(a, rel=1e-4) for a in callback.curve.accuracy]]
        assert transfer["forecast"]["value"] == pytest.approx(callback.forecast.value, rel=1e-4)
        assert transfer["association"]["targets"] == ["a", "<b>", "c"]
        columns = zip(*transfer["association"]["p"], strict=True)
        assert [sum(column) for column in columns] == pytest.approx([1] * 5, abs=0.002)  # P(y|z) of each z


@pytest.mark.usefixtures("no_figures")
def test_the_forecast_and_the_curve_so_far_are_shown_while_the_run_is_under_way(tmp_path):
    class Looks(Classifier):
        def on_train_epoch_start(self):
            seen.extend(asked(tmp_path).get_json()["transfers"])

    seen = []
    callback = LEEPCallback(make_source(), strict=True, history=False)
    fit(Looks(), callback, logger=TensorBoardLogger(tmp_path), max_epochs=12)
    assert seen[0]["achieved"] is None
    assert seen[0]["forecast"]["value"] == pytest.approx(callback.forecast.value, rel=1e-4)
    # One more validation each time, although the readers keep ten tensors of a tag.
    assert [len(transfer["curve"][0]) for transfer in seen] == list(range(12))
    accuracy = [pytest.approx(value, rel=1e-4) for value in callback.curve.accuracy[:11]]
    assert seen[-1]["curve"] == [list(range(1, 12)), accuracy]
    assert len(seen[-1]["running"]) > 0
    assert seen[-1]["association"] == seen[0]["association"]
    started, *_, last = (datetime.fromisoformat(transfer["last_written"]) for transfer in seen)
    assert started <= last <= datetime.now(UTC)


def test_a_run_under_way_writes_little(tmp_path):
    """400 validations, in at most 300 kB."""
    trainer = Trainer(logger=TensorBoardLogger(tmp_path), accelerator="cpu", enable_checkpointing=False)
    logs = RunLogs(trainer, FaultBarrier(strict=True), "leep", "resnet")
    curve, running = AccuracyCurve(), []
    for epoch in range(1, 401):
        curve = curve.append(epoch, 1 - 1 / (epoch + 0.12345))
        running.append((epoch, 0.912345, 0.812345, 0.998765))
        logs.transfer_so_far(curve, running)
    assert sum(path.stat().st_size for path in tmp_path.rglob("events*")) < 300_000


@pytest.mark.usefixtures("no_figures")
def test_a_forecast_that_is_made_anew_is_shown_at_once_and_a_run_that_breaks_off_is_no_longer_running(tmp_path):
    """The flags say that all is trained; the gradients of the first step show that the head alone is."""

    class Extractor(Classifier):
        def __init__(self):
            super().__init__()
            self.body = copy.deepcopy(self.body)

        def forward(self, inputs):
            with torch.no_grad():
                features = self.body(inputs)
            return self.head(features)

        def on_train_batch_end(self, *batch):
            if self.global_step == 1:
                seen.extend(asked(tmp_path).get_json()["transfers"])

        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                raise KeyError("broken")

    seen = []
    callback = LEEPCallback(make_source(), strict=True, history=False)
    with pytest.raises(KeyError, match="broken"):
        fit(Extractor(), callback, logger=TensorBoardLogger(tmp_path))
    (transfer,) = seen
    assert (transfer["trainable"], transfer["last_written"] is None) == ("head", False)
    assert transfer["forecast"]["value"] == pytest.approx(callback.forecast.value, rel=1e-4)
    (transfer,) = asked(tmp_path).get_json()["transfers"]
    assert (transfer["last_written"], transfer["complete"], transfer["epochs"]) == (None, False, 1)


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        "no JSON",
        "[1]",
        "{}",
        "[" * 100_000,
        [b"a", b"b"],
        json.dumps({"record": {"format": "another"}}),
        json.dumps({"record": {**CONTENT["record"], "trainable": 3}}),
    ],
    ids=["number", "text", "list", "no record", "deep", "two", "another format", "damaged"],
)
@pytest.mark.parametrize("tag", ["leep/transfer", "leep/transfer_ranking"])
def test_a_broken_event_is_named_and_hides_nothing(tmp_path, value, tag):
    write(tmp_path / "broken", value, tag)
    log_transfer(TensorBoardLogger(tmp_path, name="good", version=0), "leep/transfer", CONTENT, 0)
    answer = asked(tmp_path)
    assert answer.status_code == 200
    assert [transfer["source"] for transfer in answer.get_json()["transfers"]] == ["resnet"]
    (problem,) = answer.get_json()["problems"]
    assert "broken/run" in problem


@pytest.mark.parametrize(
    "damage", [3, {}, {"curve": 3, "running": []}, {"curve": {"epochs": [1], "accuracy": [2]}, "running": []}]
)
def test_a_broken_curve_does_not_hide_its_run(tmp_path, damage):
    write(tmp_path, json.dumps({**CONTENT, "ended": False}))
    write(tmp_path, json.dumps(damage), "leep/transfer_so_far")
    (transfer,) = asked(tmp_path).get_json()["transfers"]
    assert (transfer["source"], transfer["achieved"]) == ("resnet", 0.7)


def test_nothing_to_show(tmp_path):
    (tmp_path / "logs").mkdir()
    assert asked(tmp_path).get_json()["transfers"] == []
    assert not plugin_of(tmp_path).is_active()
    assert TransferPlugin(TBContext()).get_plugin_apps()  # without a provider, as with other data sources


def test_files_are_served_and_nothing_else(tmp_path):
    for name, kind in FILES.items():
        answer = asked(tmp_path, f"/{name}")
        assert answer.status_code == 200
        assert answer.content_type.startswith(kind)
    inside = Path(import_module("lightning_leep.tensorboard.plugin.tab").__file__)
    for path in (inside.name, f"../{inside.name}", f"%2e%2e/{inside.name}", f"static/../{inside.name}", str(inside)):
        assert asked(tmp_path, f"/{path}").status_code == 404


def test_entry_point_is_the_plugin():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, name = project["entry-points"]["tensorboard_plugins"][PLUGIN_NAME].split(":")
    assert getattr(import_module(module), name) is TransferPlugin


def test_start_of_tensorboard_loads_nothing_heavy():
    code = (
        "import sys; from tensorboard import default, program; before = set(sys.modules); "
        "import lightning_leep.tensorboard.plugin.tab; new = set(sys.modules) - before; "
        "print([name for name in ('torch', 'pytorch_lightning', 'scipy', 'matplotlib', 'fsspec') if name in new])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--load_fast=true", "--logdir={}"],
        ["--load_fast=false", "--logdir_spec=name:{}", "--path_prefix=/a/b", "--reload_interval=0.2"],
    ],
    ids=["fast", "specification, prefix"],
)
def test_a_real_tensorboard_follows_a_run(tmp_path, options):
    logger = TensorBoardLogger(tmp_path / "logs", name="", version="v")
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.save()

    def ask(path):
        with urlopen(f"{address}{path}") as answer:
            return json.load(answer)

    def wait_for(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "TensorBoard did not show it"
            time.sleep(0.1)

    with tensorboard(*(option.format(tmp_path / "logs") for option in options)) as address:
        wait_for(lambda: ask("/data/plugins_listing")["scalars"]["enabled"])
        assert not ask("/data/plugins_listing")[PLUGIN_NAME]["enabled"]
        log_transfer(logger, "leep/transfer", {**CONTENT, "ended": False}, 0)
        wait_for(lambda: ask("/data/plugins_listing")[PLUGIN_NAME]["enabled"])
        (transfer,) = ask(f"{ROUTES}/transfers")["transfers"]
        assert transfer["last_written"]
        so_far = {"curve": {"epochs": [1], "accuracy": [0.25]}, "running": [[1, 0.5, 0.4, 0.6]]}
        log_transfer(logger, "leep/transfer_so_far", so_far, 5)
        wait_for(lambda: ask(f"{ROUTES}/transfers")["transfers"][0]["achieved"] == 0.25)
        log_transfer(logger, "leep/transfer", CONTENT, 9)
        wait_for(lambda: ask(f"{ROUTES}/transfers")["transfers"][0]["last_written"] is None)
        assert ask(f"{ROUTES}/transfers")["transfers"][0]["achieved"] == 0.7
