"""Every example runs as its first lines say, in a small setting, and leaves what it promises."""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import correlation

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_leep.records import load_history

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def run_example(folder: Path, *command: str) -> str:
    """Run Python in an empty folder and return what it printed."""
    result = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def scalars_of(folder: Path) -> set[str]:
    """Tags of the scalars in the event files below a folder."""
    files = list(folder.rglob("events.out.tfevents.*"))
    return {tag for file in files for tag in EventAccumulator(str(file)).Reload().Tags()["scalars"]}


def test_finetune_digits(tmp_path):
    printed = run_example(tmp_path, str(EXAMPLES / "finetune_digits.py"), "--epochs", "1")
    assert all(text in printed for text in ("new head", "all layers", "from scratch", "is expected to reach accuracy"))
    records = load_history(tmp_path / "runs" / "transfer_history")
    assert [record.trainable for record in records] == ["head", "all"]
    predicted = {"leep/predicted_accuracy", "leep/achieved_accuracy", "leep/reference_accuracy"}
    for record in records:
        assert predicted <= scalars_of(tmp_path / "runs" / f"digits_{record.trainable}")
        assert f"{record.achieved:.3f}" in printed


def test_forecast_digits(tmp_path):
    command = [str(EXAMPLES / "forecast_digits.py"), "--epochs", "2", "--earlier", "9", "--folder", "here"]
    printed = run_example(tmp_path, *command)
    assert "from 9 earlier transfers" in printed
    records = load_history(tmp_path / "here" / "history")
    assert [record.trainable for record in records] == ["head"] * 10
    assert f"It achieved {records[-1].achieved:.3f}" in printed
    for name in ("forecast.png", "history.png", "history_by_level.png"):
        assert (tmp_path / "here" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.distributed
def test_custom_loop_on_two_processes_gives_the_value_of_one(tmp_path):
    loop = str(EXAMPLES / "custom_loop.py")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    alone, pair = run_example(tmp_path, loop), run_example(tmp_path, *launcher, loop)
    form = r"process (\d) of (\d): (\d+) images here, LEEP of all images (-\d\.\d{4})"
    ((*place, images, leep),) = re.findall(form, alone)
    assert place == ["0", "1"]
    first, second = sorted(re.findall(form, pair))
    assert (first[:2], second[:2]) == (("0", "2"), ("1", "2"))
    assert int(first[2]) + int(second[2]) == int(images)
    assert first[3] == second[3] == leep


def test_command_line_with_its_configuration(tmp_path):
    options = ["fit", "--config", str(EXAMPLES / "cli.yaml"), "--trainer.max_epochs", "1"]
    run_example(tmp_path, str(EXAMPLES / "cli.py"), *options)
    assert {"leep/predicted_accuracy", "leep/achieved_accuracy", "val_acc"} <= scalars_of(tmp_path / "runs")
    (record,) = load_history(tmp_path / "transfer_history")
    assert record.trainable == "head"
    assert (101 * record.report.permutation_p_value) % 1 == pytest.approx(0, abs=1e-9)  # of 100 shuffles


def test_experiments_of_the_leep_paper_continue_and_leave_tables_and_records(tmp_path):
    command = [str(EXAMPLES / "paper" / "leep.py"), "--quick", "--out", "here", "--epochs", "1", "--share", "0.3"]
    run_example(tmp_path, *command, "--only", "head", "few_shot")
    before = (tmp_path / "here" / "results.jsonl").read_text()
    printed = run_example(tmp_path, *command, "--only", "head", "few_shot", "convergence")
    stored = (tmp_path / "here" / "results.jsonl").read_text()
    assert stored.startswith(before)  # nothing is done twice
    results = [json.loads(line) for line in stored.splitlines()]
    heads = [result for result in results if result["experiment"] == "head"]
    x, y = [r["report"]["leep"] for r in heads], [r["curves"]["head"][-1] for r in heads]
    assert f"| 5.1 head | head | LEEP | - | {correlation(x, y):.3f} |" in printed
    assert len(load_history(tmp_path / "here" / "history").filter(trainable="head")) == len(heads)
    for name in ("table.md", "summary.json", "leep.png"):
        assert (tmp_path / "here" / name).stat().st_size > 0


def test_experiments_on_the_transfer_of_layers(tmp_path):
    command = [str(EXAMPLES / "layers" / "transferable.py"), "--quick", "--out", "here", "--epochs", "1"]
    printed = run_example(tmp_path, *command)
    results = [json.loads(line) for line in (tmp_path / "here" / "results.jsonl").read_text().splitlines()]
    accuracy = {(result["kind"], result["n"]): result["accuracy"] for result in results if "accuracy" in result}
    assert set(accuracy) == {("base", 0), *((k, n) for k in ("AnB", "BnB", "RnB", "AnB+", "BnB+") for n in (1, 4, 7))}
    assert f"| 7 | {100 * (accuracy['AnB', 7] - accuracy['base', 0]):+.1f} |" in printed
    assert (tmp_path / "here" / "layers.png").read_bytes().startswith(b"\x89PNG")
    again = run_example(tmp_path, *command)
    assert printed.split("**random**")[1] == again.split("**random**")[1]
    assert len((tmp_path / "here" / "results.jsonl").read_text().splitlines()) == len(results)
