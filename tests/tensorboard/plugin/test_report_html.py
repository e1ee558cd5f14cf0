"""The page as a file: self-contained, and names stay names."""

import re
import subprocess
import sys

import pytest

from lightning_leep.records import save_record
from lightning_leep.tensorboard.plugin.page_data import page_data
from lightning_leep.tensorboard.plugin.report_html import report_html
from tests._helpers.simulated_transfers import make_record

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>&lt;b&gt; \u2028 \ud800"


def run(*arguments):
    command = [sys.executable, "-m", "lightning_leep", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_names_never_become_markup():
    page = report_html(page_data([make_record(source_name=HOSTILE, target_name=HOSTILE, optimizer=HOSTILE)]))
    assert page.count("</script>") == 2  # of the data and of the program
    assert "<img" not in page
    page.encode()  # a lone surrogate is escaped


def test_nothing_is_loaded_from_elsewhere():
    page = report_html(page_data([make_record()]))
    assert not re.search(r"^import |^export ", page, flags=re.MULTILINE)
    assert not re.search(r'(src|href)="(?!data:)', page)
    addresses = set(re.findall(r"\w+://[^\s\"'`]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}, addresses
    assert "default-src 'none'" in page


def test_command_writes_the_page_and_says_where(tmp_path):
    save_record(make_record(source_name="resnet"), tmp_path / "history")
    (tmp_path / "history" / "broken.json").write_text("{")
    result = run(tmp_path / "history", "-o", tmp_path / "page.html")
    assert result.returncode == 0, result.stderr
    assert "1 transfer," in result.stderr
    assert "broken.json" in result.stderr
    assert "resnet" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no folder", "no ranking", "not a ranking", "cannot be written"])
def test_command_says_what_is_wrong(tmp_path, kind):
    save_record(make_record(), tmp_path / "history")
    (tmp_path / "list.json").write_text("[]")
    arguments = {
        "no folder": [tmp_path / "elsewhere"],
        "no ranking": [tmp_path / "history", "--ranking", tmp_path / "missing.json"],
        "not a ranking": [tmp_path / "history", "--ranking", tmp_path / "list.json"],
        "cannot be written": [tmp_path / "history", "-o", tmp_path],
    }[kind]
    output = [] if "-o" in arguments else ["-o", tmp_path / "page.html"]
    result = run(*arguments, *output)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Cannot write the report:")


def test_command_needs_no_torch(tmp_path):
    save_record(make_record(), tmp_path)
    code = (
        "import sys; from lightning_leep.cli import main; "
        f"main(['report', {str(tmp_path)!r}, '-o', {str(tmp_path / 'page.html')!r}]); "
        "print([name for name in ('torch', 'pytorch_lightning', 'tensorboard', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
