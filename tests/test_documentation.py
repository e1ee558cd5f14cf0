"""What the README and the documentation say is so: their programs run, and their lists are complete."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import lightning_leep
from lightning_leep.forecast import AccuracyForecast, RunningForecast
from lightning_leep.records import AccuracyCurve
from lightning_leep.tensorboard.scalars import forecast_tags, validation_tags
from tests._helpers.simulated_transfers import make_record

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def programs(page: Path) -> str:
    """The Python of a page, its snippets one after the other."""
    snippets = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return "\n".join(snippets)


@pytest.fixture(scope="module")
def after_readme(tmp_path_factory):
    """The names that the README's program has defined, once it has run in an empty folder."""
    names: dict[str, object] = {"__name__": "readme"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        exec(compile(programs(ROOT / "README.md"), "README.md", "exec"), names)
    return names


@pytest.mark.slow
def test_readme_forecasts_and_trains(after_readme):
    callback = after_readme["callback"]
    assert callback.forecast.low <= callback.forecast.value <= callback.forecast.high
    assert len(callback.curve) == 5
    assert after_readme["report"].leep == pytest.approx(float(after_readme["metric"].compute()), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if programs(page)], ids=lambda page: page.stem)
def test_page_continues_the_program_of_the_readme(page, after_readme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(programs(page), str(page), "exec"), dict(after_readme))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_a_page_names_exist(page):
    for name in re.findall(
        r"\b(?:examples|benchmarks|tests|docs)/[\w/]+\.(?:py|yaml|md|png|svg)", page.read_text("utf-8")
    ):
        assert (ROOT / name).exists(), name


def test_every_public_name_is_in_the_reference():
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    listed = {path.rpartition(".")[2] for path in re.findall(r"^::: ([\w.]+)", text, re.MULTILINE)}
    packages = [name for _, name, is_package in iter_modules(lightning_leep.__path__, "lightning_leep.") if is_package]
    for package in (lightning_leep, *map(import_module, packages)):
        public = set(getattr(package, "__all__", ())) - {"__version__"}
        assert public <= listed, f"{package.__name__}: {sorted(public - listed)}"


def test_schema_of_a_record_lists_its_fields():
    section = (ROOT / "docs/history.md").read_text(encoding="utf-8").split("## The schema")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(make_record().to_dict())


@pytest.mark.slow
def test_every_logged_tag_is_listed(after_readme):
    page = (ROOT / "docs/tags.md").read_text(encoding="utf-8").split("Figures and text")[0]
    listed = re.findall(r"^\| `(leep/\w+)` \|", page, re.MULTILINE)
    curve = AccuracyCurve((1, 2), (0.5, 0.9))
    forecast = AccuracyForecast(value=0.7, low=0.6, high=0.8, coverage=0.9, trainable="head", basis="9 rows")
    running = RunningForecast(value=0.9, low=0.8, high=0.95, coverage=0.9, eta_epochs=3.0, num_validations=2)
    tags = forecast_tags(forecast) | validation_tags(curve, forecast, 0.6, running)
    assert set(listed) == {*tags, "leep/achieved_accuracy"}
    assert len(listed) == len(set(listed)) <= 20
    logged = {tag for tag in after_readme["trainer"].callback_metrics if tag.startswith("leep/")}
    assert {"leep/predicted_accuracy", "leep/achieved_accuracy"} <= logged <= set(listed)
