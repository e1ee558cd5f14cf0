"""The page as a file: self-contained, and names stay names."""

import re

from lightning_leep.cli import main
from lightning_leep.records import save_record
from lightning_leep.tensorboard.plugin.page_data import page_data
from lightning_leep.tensorboard.plugin.report_html import report_html
from tests._helpers.simulated_transfers import make_record

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>&lt;b&gt; \u2028 \ud800"


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


def test_command_writes_the_page_and_says_where(tmp_path, capsys):
    save_record(make_record(source_name="resnet"), tmp_path / "history")
    (tmp_path / "history" / "broken.json").write_text("{")
    assert main(["report", str(tmp_path / "history"), "-o", str(tmp_path / "page.html")]) == 0
    warning, page = capsys.readouterr().err.splitlines()
    assert "broken.json" in warning
    assert "1 transfer," in page
    assert "resnet" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_command_says_what_is_wrong(tmp_path, capsys):
    save_record(make_record(), tmp_path / "history")
    (tmp_path / "list.json").write_text("[]")
    page = ["-o", tmp_path / "page.html"]
    for arguments in (
        [tmp_path / "elsewhere", *page],
        [tmp_path / "history", "--ranking", tmp_path / "missing.json", *page],
        [tmp_path / "history", "--ranking", tmp_path / "list.json", *page],
        [tmp_path / "history", "-o", tmp_path],
    ):
        assert main(["report", *map(str, arguments)]) == 2
        assert capsys.readouterr().err.startswith("Cannot write the report:")
    assert not (tmp_path / "page.html").exists()
