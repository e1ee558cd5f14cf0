"""Every example runs as its first lines say, in a small setting, and leaves what it promises.

The figures that the callback logs are not drawn; those that an example draws itself are. The experiments of both papers
run on digits and continue where they stopped.
"""

import json
import os
import re
import runpy
import socket
import sys
import warnings
from contextlib import redirect_stdout
from functools import cache, partial
from pathlib import Path
from statistics import correlation

import pytest
from lightning_utilities.core import rank_zero
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_leep.records import load_history
from lightning_leep.records.ranking import Ranking
from tests._helpers.distributed import fork_server
from tests._helpers.saved_history import save_earlier

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Of the experiments, in whose folders others have the same names.
MODULES = ("correlations", "data", "layers_report", "network", "report", "training")

pytestmark = pytest.mark.slow


def make_small(digits):
    """Every second image only; the source networks are trained for two epochs, once each."""
    load = digits.load_digits
    digits.load_digits = cache(lambda chosen: tuple(values[::2] for values in load(chosen)))
    digits.pretrain = cache(partial(digits.pretrain, epochs=2))


@pytest.fixture(scope="module")
def digits():
    """The examples' own module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        import digits

        make_small(digits)
        yield digits
    del sys.modules["digits"]


@pytest.fixture
def run_example(digits, tmp_path, monkeypatch, capsys):
    """Run an example as ``python examples/NAME`` in an empty folder would, and return what it printed."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.syspath_prepend((EXAMPLES / name).parent)
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    level = rank_zero.log.level
    with warnings.catch_warnings():
        yield run
    rank_zero.log.setLevel(level)
    for name in MODULES:
        sys.modules.pop(name, None)


def scalars_of(folder: Path) -> set[str]:
    """Tags of the scalars in the event files below a folder."""
    files = list(folder.rglob("events.out.tfevents.*"))
    return {tag for file in files for tag in EventAccumulator(str(file)).Reload().Tags()["scalars"]}


@pytest.mark.usefixtures("no_figures")
def test_finetune_digits(run_example, tmp_path):
    printed = run_example("finetune_digits.py", "--epochs", "1")
    assert all(text in printed for text in ("new head", "all layers", "from scratch", "is expected to reach accuracy"))
    records = load_history(tmp_path / "runs" / "transfer_history")
    assert [record.trainable for record in records] == ["head", "all"]
    predicted = {"leep/predicted_accuracy", "leep/achieved_accuracy", "leep/reference_accuracy"}
    for record in records:
        assert predicted <= scalars_of(tmp_path / "runs" / f"digits_{record.trainable}")
        assert f"{record.achieved:.3f}" in printed


@pytest.mark.usefixtures("no_figures")
def test_forecast_digits(run_example, tmp_path):
    """On top of a history of eight, to which a run is added before the one that is forecast."""
    save_earlier(tmp_path / "here" / "history", size=8, trainable="head")
    printed = run_example("forecast_digits.py", "--epochs", "1", "--earlier", "1", "--folder", "here")
    assert "from 9 earlier transfers" in printed
    records = load_history(tmp_path / "here" / "history")
    assert [record.trainable for record in records] == ["head"] * 10
    assert f"It achieved {records[-1].achieved:.3f}" in printed
    for name in ("forecast.png", "history.png", "history_by_level.png"):
        assert (tmp_path / "here" / name).read_bytes().startswith(b"\x89PNG")


def test_layers_digits(run_example, tmp_path):
    printed = run_example("layers_digits.py", "--epochs", "1", "--folder", "here")
    assert "* recommended" in printed
    for what in ("a linear head on the last features", "from layer3.0 on", "all layers"):
        assert re.search(rf"^{what}: expected 0\.\d+, achieved 0\.\d+$", printed, re.MULTILINE)
    assert (tmp_path / "here" / "layers.png").read_bytes().startswith(b"\x89PNG")


def run_loop(rank: int, port: int, printed: Path) -> None:
    """One process of ``torchrun --nproc-per-node 2 examples/custom_loop.py``."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT=str(port))
    sys.path.insert(0, str(EXAMPLES))
    import digits

    make_small(digits)
    with printed.open("w") as file, redirect_stdout(file):
        runpy.run_path(str(EXAMPLES / "custom_loop.py"), run_name="__main__")


@pytest.mark.distributed
def test_custom_loop_on_two_processes_gives_the_value_of_one(run_example, tmp_path):
    alone = run_example("custom_loop.py")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    files = [tmp_path / "0", tmp_path / "1"]
    processes = [fork_server().Process(target=run_loop, args=(r, port, files[r])) for r in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    pair = "".join(file.read_text() for file in files)
    form = r"process (\d) of (\d): (\d+) images here, LEEP of all images (-\d\.\d{4})"
    ((*place, images, leep),) = re.findall(form, alone)
    assert place == ["0", "1"]
    first, second = sorted(re.findall(form, pair))
    assert (first[:2], second[:2]) == (("0", "2"), ("1", "2"))
    assert int(first[2]) + int(second[2]) == int(images)
    assert first[3] == second[3] == leep


@pytest.mark.usefixtures("no_figures")
def test_command_line_with_its_configuration(run_example, tmp_path):
    run_example("cli.py", "fit", "--config", str(EXAMPLES / "cli.yaml"), "--trainer.max_epochs", "1")
    assert {"leep/predicted_accuracy", "leep/achieved_accuracy", "val_acc"} <= scalars_of(tmp_path / "runs")
    (record,) = load_history(tmp_path / "transfer_history")
    assert record.trainable == "head"
    assert (101 * record.report.permutation_p_value) % 1 == pytest.approx(0, abs=1e-9)  # of 100 shuffles


def test_rank_sources(run_example, tmp_path):
    printed = run_example("rank_sources.py", "--folder", "here", "--epochs", "6")
    ranking = Ranking.from_json(tmp_path / "here" / "ranking.json")
    assert len(ranking.sources) == 6
    assert all(source.rank is not None for source in ranking.sources)
    assert (tmp_path / "here" / "ranking.png").read_bytes().startswith(b"\x89PNG")
    achieved = re.findall(r"^(.+?) +(\d\.\d{3})  \(forecast (\d\.\d\d)-(\d\.\d\d)\)$", printed, re.MULTILINE)
    assert [name for name, *_ in achieved] == [source.name for source in ranking.sources]
    assert sum(float(low) <= float(value) <= float(high) for _, value, low, high in achieved) >= 4


def results_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def events_in(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


def test_leep_paper(run_example, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "paper")
    import data

    monkeypatch.setattr(data, "train_source", partial(data.train_source, epochs=1))
    command = ["paper/leep.py", "--quick", "--out", "here", "--epochs", "1", "--share", "0.3"]
    run_example(*command, "--only", "head", "few_shot")
    before = (tmp_path / "here" / "results.jsonl").read_text()
    printed = run_example(*command, "--only", "head", "few_shot", "convergence")
    assert (tmp_path / "here" / "results.jsonl").read_text().startswith(before)  # nothing is done twice
    heads = [result for result in results_in(tmp_path / "here") if result["experiment"] == "head"]
    x, y = [r["report"]["leep"] for r in heads], [r["curves"]["head"][-1] for r in heads]
    assert f"| 5.1 head | head | LEEP | - | {correlation(x, y):.3f} |" in printed
    assert len(load_history(tmp_path / "here" / "history").filter(trainable="head")) == len(heads)
    for name in ("table.md", "summary.json", "leep.png"):
        assert (tmp_path / "here" / name).stat().st_size > 0
    events = events_in(tmp_path / "here")
    assert [scalar.value for scalar in events.Scalars("head/head/achieved")] == pytest.approx(y)
    assert "leep" in events.Tags()["images"]


def test_transfer_of_layers(run_example, tmp_path):
    command = ["layers/transferable.py", "--quick", "--out", "here", "--epochs", "1"]
    printed = run_example(*command)
    results = results_in(tmp_path / "here")
    accuracy = {(result["kind"], result["n"]): result["accuracy"] for result in results if "accuracy" in result}
    assert set(accuracy) == {("base", 0), *((k, n) for k in ("AnB", "BnB", "RnB", "AnB+", "BnB+") for n in (1, 4, 7))}
    assert f"| 7 | {100 * (accuracy['AnB', 7] - accuracy['base', 0]):+.1f} |" in printed
    assert (tmp_path / "here" / "layers.png").read_bytes().startswith(b"\x89PNG")
    events = events_in(tmp_path / "here")
    first = events.Scalars("random/AnB")[0]
    assert (first.step, first.value) == (1, pytest.approx(accuracy["AnB", 1] - accuracy["base", 0]))
    assert events.Tags()["images"] == ["layers"]
    assert printed.split("**random**")[1] == run_example(*command).split("**random**")[1]
    assert len(results_in(tmp_path / "here")) == len(results)
