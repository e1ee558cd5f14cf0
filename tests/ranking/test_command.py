"""The commands `rank` and `score`, with a zoo in a file and images in a folder."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from lightning_leep import TransferabilityReport
from lightning_leep.cli import main
from lightning_leep.ranking.zoo import read_data, read_zoo
from lightning_leep.records.ranking import Ranking
from tests._helpers.small_zoo import Sees, make_rows

TENSOR = {"class_path": "lightning_leep.ranking.ImageToTensor", "init_args": {"size": 4, "mean": [0.5], "std": [0.5]}}


class Bright(nn.Module):
    """A source of images that sees the mean of some channels."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, 4)
        self.fc.weight.data = torch.linspace(-1, 1, 4 * channels).reshape(4, channels)

    def forward(self, x):
        return self.fc(x.mean(dim=(2, 3))[:, : self.fc.in_features])


def rows(n: int = 150):
    return make_rows(n)


def broken(power: int):
    raise OSError(f"no power {power}")


FOLDER = str(Path(__file__).parent)
BRIGHT = f"{__name__}.Bright"
GOOD, ROWS = f"{__name__}.good", json.dumps({"class_path": f"{__name__}.rows"})


@pytest.fixture
def zoo(tmp_path):
    def write(sources, **rest):
        path = tmp_path / "zoo.yaml"
        path.write_text(yaml.safe_dump({"sources": sources, **rest}))
        return str(path)

    return write


def entry(channels=3, **rest):
    return {"model": {"class_path": BRIGHT, "init_args": {"channels": channels}}, "transform": TENSOR, **rest}


def test_rank_writes_the_ranking_and_prints_a_table_of_80_columns(zoo, images, tmp_path, capsys):
    path = zoo({"colours": entry(source_accuracy=0.8), "one colour": entry(1)})
    out = tmp_path / "ranking.json"
    status = main(["rank", path, "--data", f"imagefolder:{images}", "--trainable", "all", "--out", str(out)])
    printed = capsys.readouterr().out
    assert status == 0
    assert all(len(line) <= 80 for line in printed.splitlines() if not line.startswith("- "))
    ranking = Ranking.from_json(out)
    assert (ranking.best, ranking.trainable, ranking.by) == ("colours", ("all",), "all")
    assert ranking["colours"].source_accuracy == 0.8
    assert ranking.num_samples == 60
    assert printed.splitlines()[1].split()[1] == "colours"


def test_json_by_and_a_subset(zoo, images, capsys):
    path = zoo({"one": entry(1), "three": entry()}, data=f"imagefolder:{images}")
    assert main(["rank", path, "--json", "--by", "num_parameters", "--max-samples", "30"]) == 0
    ranking = Ranking.from_dict(json.loads(capsys.readouterr().out))
    assert (ranking.by, ranking.best, ranking.num_samples) == ("num_parameters", "three", 30)


def test_data_by_class_path_with_sources_by_dotted_path_and_file(zoo, tmp_path, capsys):
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump({"class_path": f"{__name__}.rows", "init_args": {"n": 90}}))
    assert main(["rank", zoo([f"{__name__}.good"]), "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_samples"] == 90
    inline = json.dumps({"class_path": f"{__name__}.rows"})
    assert main(["score", f"{__name__}.good", "--data", inline, "--json"]) == 0
    report = TransferabilityReport.from_json(capsys.readouterr().out)
    assert (report.num_samples, report.num_target_classes) == (150, 3)


def good() -> nn.Module:
    return Sees(0, 1, 2)


def test_score_prints_the_report_and_what_each_part_would_reach(zoo, images, capsys):
    path = zoo({"colours": entry()})
    assert main(["score", path, "--data", f"imagefolder:{images}", "--trainable", "head"]) == 0
    printed = capsys.readouterr().out
    assert "60 rows of 3 target classes" in printed
    assert "Training the head is expected to reach accuracy" in printed
    table = [line for line in printed.splitlines() if line.startswith(("LEEP ", "linear probe "))]
    assert len(table) == 2
    assert max(map(len, table)) <= 80


def test_a_word_of_ones_own_is_told_from_a_slip(zoo, capsys):
    for command in (["rank", zoo([GOOD])], ["score", GOOD]):
        assert main([*command, "--data", ROWS, "--trainable", "haed", "all"]) == 0
        assert "'haed' is not one of head, all, part, gradual, scratch" in capsys.readouterr().out


BROKEN = {"model": {"class_path": f"{__name__}.broken", "init_args": {"power": 3}}, "transform": TENSOR}


@pytest.mark.parametrize(
    ("sources", "status"),
    [
        ({"good": entry()}, 0),
        ({"good": entry(), "bad": BROKEN}, 3),
        ({"bad": BROKEN}, 1),
        ({"typed": entry(), "wrong": entry("x")}, 3),
        ({"no transform": {"model": BRIGHT}, "good": entry()}, 3),
        ({"no package": "timm:resnet18", "good": entry()}, 3),
        ({"class": {"model": BRIGHT, "transform": "lightning_leep.ranking.ImageToTensor"}}, 0),
    ],
)
def test_exit_status(sources, status, zoo, images, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert main(["rank", zoo(sources), "--data", f"imagefolder:{images}"]) == status
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    said = {"bad": "no power 3", "wrong": "channels", "no transform": "ImageToTensor", "no package": "[timm]"}
    for name, text in said.items():
        assert (text in shown) == (name in sources)


def stops() -> nn.Module:
    raise KeyboardInterrupt


def test_interruption_is_one_line_and_says_what_is_kept(zoo, tmp_path, capsys):
    path = zoo({"a": GOOD, "b": f"{__name__}.stops"})
    assert main(["rank", path, "--data", ROWS, "--folder", str(tmp_path / "kept")]) == 130
    assert capsys.readouterr().err == f"Interrupted. The same command goes on with what {tmp_path / 'kept'} holds.\n"
    assert main(["score", f"{__name__}.stops", "--data", ROWS]) == 130


def test_the_table_is_printed_even_if_the_file_cannot_be_written(zoo, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["rank", zoo([GOOD]), "--data", ROWS, "--out", str(tmp_path / "file" / "ranking.json")]) == 2
    assert "LOO LEEP" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("sources: {", "neither YAML nor JSON"),
        ("a: [1\n", "neither YAML nor JSON"),
        ("[1]", "`sources`"),
        ("sources: {a: 3}", "'a'"),
        ("sources: {a: {transform: b}}", "'a'"),
        ("sources: {a: {model: b.c, colour: 1}}", "'a'"),
        ("sources: {a: {model: b.c, source_accuracy: 80}}", "'a'.*source_accuracy"),
        ("sources: {a: {model: b.c, options: {colour: 1}}}", "'a'.*colour"),
        ("sources: {a: {model: b.c, transform: no_such_module.b}}", "'a'.*no_such_module"),
        ("sources: [timm:a, timm:a]", "each once"),
        ("sources: {}", "at least one source"),
        ("sources: {a: b.c, a: b.d}", "twice"),
        ("sources: {a: b.c}\nmore: 1", "more"),
    ],
)
def test_bad_zoo_is_one_line_and_status_2(content, text, tmp_path, images, capsys):
    path = tmp_path / "zoo.yaml"
    path.write_text(content)
    assert main(["rank", str(path), "--data", f"imagefolder:{images}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\\n" not in error
    assert re.search(text, error)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["rank", "nowhere.yaml"], "nowhere.yaml' cannot be read: No such file"),
        (["rank", FOLDER], "cannot be read: Is a directory"),
        (["rank", "ZOO", "--data", "nowhere.yaml"], "nowhere.yaml' cannot be read: No such file"),
        (["rank", "ZOO", "--data", "imagefolder:nowhere"], "PATH of imagefolder:PATH must be a folder"),
        (["rank", "ZOO", "--data", "imagefolder:"], "PATH of imagefolder:PATH must not be empty"),
        (["rank", "ZOO", "--data", f"imagefolder:{FOLDER}"], "PATH of imagefolder:PATH must hold at least 2"),
        (["rank", "ZOO", "--data", ROWS, "--max-samples", "0"], "--max-samples must be"),
        (["rank", "ZOO", "--data", ROWS, "--batch-size", "0"], "--batch-size must be"),
        (["rank", "ZOO", "--data", ROWS, "--by", "colour"], "--by must be"),
        (["rank", "ZOO", "--data", ROWS, "--out", FOLDER], "--out must be a file"),
        (["rank", "ZOO", "--data", ROWS, "--folder", __file__], ".py: File exists"),
        (["rank", "ZOO", "--data", ROWS, "--history", "nowhere"], "--history must be a folder of records"),
        (["score", GOOD], "--data"),
        (["score", GOOD, "--data", FOLDER], f"imagefolder:{FOLDER}"),
        (["score", GOOD, "--data", "{}"], "class_path"),
        (["score", GOOD, "--data", json.dumps({"class_path": f"{__name__}.nothing"})], "nothing"),
        (["score", GOOD, "--data", ROWS, "--device", "warp"], "warp"),
    ],
)
def test_a_message_of_one_line_names_what_was_typed(arguments, text, zoo, capsys):
    assert main([zoo([GOOD]) if word == "ZOO" else word for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert text in error
    assert "Errno" not in error


def test_names_of_sources_are_what_was_typed(tmp_path, capsys):
    path = tmp_path / "zoo.yaml"
    path.write_text(
        f"sources:\n  1: {GOOD}\n  yes: &same {{model: {GOOD}}}\n  007: {{<<: *same, source_accuracy: 0.5}}\n"
    )
    assert main(["rank", str(path), "--data", ROWS, "--json"]) == 0
    ranking = Ranking.from_dict(json.loads(capsys.readouterr().out))
    assert {source.name for source in ranking.sources} == {"1", "yes", "007"}
    assert ranking["007"].source_accuracy == 0.5


def test_modules_of_the_current_folder_are_found(tmp_path, monkeypatch, capsys):
    (tmp_path / "models_of_mine.py").write_text("from torch.nn import Linear\ndef make(): return Linear(8, 4)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["score", "models_of_mine.make", "--data", ROWS]) == 0


def test_a_folder_in_the_home_folder(images, monkeypatch):
    monkeypatch.setenv("HOME", str(images.parent))
    assert len(read_data(f"imagefolder:~/{images.name}")) == 60


def test_usage_puts_the_zoo_before_the_options(capsys):
    with pytest.raises(SystemExit):
        main(["rank", "--trainable", "all", "zoo.yaml"])
    assert "rank ZOO [--data DATA] [options]" in capsys.readouterr().err


def test_score_of_a_source_that_fails(images, capsys):
    assert main(["score", f"{__name__}.Bright", "--data", json.dumps({"class_path": f"{__name__}.rows"})]) == 1
    assert "dim" in capsys.readouterr().err.lower()
    assert main(["score", "no_such_module.model", "--data", ROWS]) == 1
    assert "no_such_module" in capsys.readouterr().err


def test_zoo_makes_models_when_they_are_scored(zoo):
    sources, data = read_zoo(zoo({"late": {"model": "no_such_module.model"}}))
    assert data is None
    with pytest.raises(ModuleNotFoundError):
        sources["late"].model()


def test_a_datamodule_gives_its_training_data():
    loader = read_data({"class_path": f"{__name__}.Module"})
    assert loader.dataset.tensors[0].shape == (150, 8)


class Module:
    """What Lightning calls of a datamodule."""

    def prepare_data(self):
        self.prepared = True

    def setup(self, stage):
        assert self.prepared
        self.data = rows() if stage == "fit" else None

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.data, 10, shuffle=True)


def test_table_fits_the_terminal(zoo, images, capsys, monkeypatch):
    path = zoo({"a source with a very long name, longer than any": entry(), "short [b]": entry(1)})
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    titles = []
    for width in (70, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["rank", path, "--data", f"imagefolder:{images}"]) == 0
        table = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("- ")]
        assert any("short [b]" in line for line in table)
        assert max(map(len, table)) <= width
        titles.append(table[0].split())
    assert len(titles[0]) < len(titles[1])
