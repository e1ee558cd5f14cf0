"""The experiments of both papers run on digits, continue where they stopped, and write what they promise."""

import json
import runpy
import sys
from pathlib import Path
from statistics import correlation

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_leep.records import load_history

EXAMPLES = Path(__file__).parents[2] / "examples"
MODULES = ("correlations", "data", "layers_report", "network", "report", "training")

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a script as ``python examples/FOLDER/NAME`` would, and return what it printed."""

    def run_script(script: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.syspath_prepend((EXAMPLES / script).parent)
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    yield run_script
    for name in MODULES:
        sys.modules.pop(name, None)


def results_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def events_in(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


def test_leep_paper(run, tmp_path):
    command = ["paper/leep.py", "--quick", "--out", "here", "--epochs", "1", "--share", "0.3"]
    run(*command, "--only", "head", "few_shot")
    before = (tmp_path / "here" / "results.jsonl").read_text()
    printed = run(*command, "--only", "head", "few_shot", "convergence")
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


def test_transfer_of_layers(run, tmp_path):
    command = ["layers/transferable.py", "--quick", "--out", "here", "--epochs", "1"]
    printed = run(*command)
    results = results_in(tmp_path / "here")
    accuracy = {(result["kind"], result["n"]): result["accuracy"] for result in results if "accuracy" in result}
    assert set(accuracy) == {("base", 0), *((k, n) for k in ("AnB", "BnB", "RnB", "AnB+", "BnB+") for n in (1, 4, 7))}
    assert f"| 7 | {100 * (accuracy['AnB', 7] - accuracy['base', 0]):+.1f} |" in printed
    assert (tmp_path / "here" / "layers.png").read_bytes().startswith(b"\x89PNG")
    events = events_in(tmp_path / "here")
    first = events.Scalars("random/AnB")[0]
    assert (first.step, first.value) == (1, pytest.approx(accuracy["AnB", 1] - accuracy["base", 0]))
    assert events.Tags()["images"] == ["layers"]
    assert printed.split("**random**")[1] == run(*command).split("**random**")[1]
    assert len(results_in(tmp_path / "here")) == len(results)
