"""The page as users see it, in a real browser: as a file from disk and as a tab of TensorBoard."""

import pytest
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_leep.forecast import AccuracyForecast
from lightning_leep.records import AccuracyCurve
from lightning_leep.records.association import Association
from lightning_leep.records.layers import LayerScore
from lightning_leep.records.ranking import RankedSource, Ranking, SourceForecast
from lightning_leep.tensorboard.plugin.page_data import page_data
from lightning_leep.tensorboard.plugin.report_html import report_html
from lightning_leep.tensorboard.writer import log_transfer
from tests._helpers.browser import chromium
from tests._helpers.simulated_transfers import make_record, make_report
from tests._helpers.tensorboard_server import tensorboard

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>&lt;b&gt;"
LAYERS = tuple(
    LayerScore(name=f"layer{i}", width=8, kept_width=8, probe_accuracy=0.5 + i / 20, feeds_head=i == 3)
    for i in range(4)
)  # fmt: skip


def transfer(name: str, achieved: float, day: int = 1, **values):
    curve = AccuracyCurve((1, 2, 3), (achieved / 2, achieved, achieved))
    report = make_report(layers=LAYERS, notes=("A note.",))
    values = {"trainable": "head", "recommended": "layer2", "reference": 0.4, **values}
    created = f"2026-01-{day:02}T00:00:00+00:00"
    return make_record(report=report, curve=curve, source_name=name, target_name="pets", created=created, **values)


# Each was forecast 70%, give or take 4 points.
RECORDS = [
    transfer("resnet", 0.7, 1),
    transfer("vit", 0.9, 2, trainable="all"),
    transfer("convnext", 0.3, 3),
    transfer("early", 0.2, 4, complete=False),
]
MARKUP = "</script><img src=x onerror='hacked=1'>"
ASSOCIATION = Association(("cat", MARKUP), (MARKUP[::-1],), ((0.75,), (0.25,)), "Shown: all.")


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page of records from disk; afterwards nothing was complained of and nothing was asked for elsewhere."""

    def open_page(records, *rankings):
        (tmp_path / "report.html").write_text(report_html(page_data(records, rankings)), encoding="utf-8")
        browser.theme("light")
        browser.resize(1400, 900)
        browser.open(f"file://{tmp_path}/report.html")
        browser.run("return document.querySelector('h1')")
        return browser

    browser.complaints(), browser.requests()
    yield open_page
    assert browser.complaints() == []
    assert {address.split(":")[0] for address in browser.requests()} <= {"file", "data"}


def column(browser, title: str) -> list[str]:
    place = browser.texts(".transfers thead th").index(title) + 1
    return browser.texts(f".transfers tbody td:nth-child({place})")


def test_summary_table_chart_sorting_and_filters(opened):
    page = opened(RECORDS)
    assert page.texts("h1") == ["4 transfers"]
    assert page.texts(".summary strong")[0].startswith("1 of 3 inside the 90% interval, mean error")
    assert column(page, "source") == ["early", "convnext", "vit", "resnet"]  # the newest first
    assert [text.split(",")[0] for text in column(page, "outcome")] == ["ended early", "below", "above", "inside"]
    page.run("return document.querySelectorAll('.pick').length === 3")
    page.click("th[data-title=achieved] button")
    assert column(page, "achieved") == ["20.0%", "30.0%", "70.0%", "90.0%"]
    page.click("th[data-title=achieved] button")
    assert column(page, "achieved") == ["90.0%", "70.0%", "30.0%", "20.0%"]
    assert page.value("document.querySelector('th[data-title=achieved]').ariaSort") == "descending"
    page.click("input[type=search]")
    page.press("vit")
    assert column(page, "source") == ["vit"]
    assert page.texts(".summary strong")[0].startswith("0 of 1 inside")
    page.press("zzz")
    assert column(page, "source") == []
    assert "No transfer matches." in page.texts(".summary")[0]
    page.press(*["BACKSPACE"] * 6)
    page.click("select[aria-label='anything trained'] option[value=all]")
    assert column(page, "source") == ["vit"]


def test_one_transfer_and_points_of_the_chart_by_click_and_by_keys(opened):
    page = opened(RECORDS)
    page.click(".transfers tbody tr", 2)
    assert page.texts("#transfer h2") == ["vit → pets"]
    words = page.texts("#transfer p")[0]
    assert "above the interval" in words
    assert "Achieved minus reference: +50.0 points" in words
    page.press("ARROW_DOWN")
    assert page.texts("#transfer h2") == ["resnet → pets"]
    page.press("HOME")
    assert page.texts("#transfer h2") == ["early → pets"]
    assert "ended early" in page.texts("#transfer p")[0]
    page.run("return document.querySelectorAll('#transfer svg[role=img]').length === 2")
    assert any("train from layer2 on (layer 3 of 4)" in text for text in page.texts("#transfer .legend li"))
    page.run("return document.querySelectorAll('#transfer details td').length > 0")  # for those who cannot point
    page.run("return document.querySelectorAll('.pick').length === 3")
    stops = "document.querySelectorAll('.pick[tabindex=\"0\"]').length"
    assert page.value(stops) == 1
    page.click(".transfers tbody tr", 1)
    page.press("TAB")  # from the rows to the chart, where one point is a stop
    for key, name in [("ARROW_UP", "resnet"), ("ARROW_UP", "vit"), ("ARROW_UP", "vit"), ("ARROW_DOWN", "resnet")]:
        page.press(key)
        assert page.texts("#transfer h2") == [f"{name} → pets"]
        assert page.value(
            f"document.activeElement.matches('.pick:focus-visible[aria-label^={name}][aria-selected=true]')"
        )
    assert page.value(stops) == 1
    page.press("TAB")  # out of the chart
    assert not page.value("document.activeElement.matches('.pick')")
    page.click(".pick:not([aria-selected=true]) path")
    assert page.texts("#transfer h2") != ["resnet → pets"]


def test_names_of_users_stay_names(opened):
    records = [transfer(HOSTILE, 0.7, optimizer=HOSTILE, association=ASSOCIATION)]
    ranking = Ranking(
        sources=(RankedSource(name=HOSTILE, error=HOSTILE),), by="head", trainable=("head",), num_samples=9
    )
    page = opened(records, ranking)
    assert column(page, "source") == [HOSTILE]
    assert page.value("window.hacked") is None
    assert page.value("document.querySelectorAll('img').length") == 0
    assert HOSTILE in page.texts("#transfer dd")
    assert page.texts(".heat tbody th") == ["cat", MARKUP]
    assert page.texts(".heat tbody td") == ["0.75", "0.25"]


def test_ranking_with_ties(opened):
    def source(name, rank, accuracy, **values):
        forecast = SourceForecast(accuracy=accuracy, low=accuracy - 0.05, high=accuracy + 0.05, confidence=0.9)
        return RankedSource(name=name, rank=rank, forecasts={"head": forecast}, **values)

    sources = (
        source("vit", 1, 0.9),
        source("convnext", 1, 0.89, tied_with_best=True, gap=0.01, gap_standard_error=0.02, more_samples=800),
        source("resnet", 3, 0.7, gap=0.2),
        RankedSource(name="broken", error="no such file"),
    )
    ranking = Ranking(sources=sources, by="head", trainable=("head",), num_samples=500, target="pets")
    page = opened([], ranking)
    assert page.texts("h2") == ["Which source for pets"]
    assert page.texts("section strong")[0] == "vit and convnext cannot be told apart on 500 rows."
    assert page.texts(".ranking tbody td:first-child") == ["1 =", "1 =", "3", "\u2013"]
    table = " ".join(page.texts(".ranking tbody"))
    assert "no such file" in table
    assert "about 800 rows more" in table
    assert "\u22121.0 points (± 2.0)" in table


def test_nothing_to_show_says_what_to_do_and_a_transfer_of_which_little_is_known_is_shown(opened):
    page = opened([])
    assert "Nothing to show yet. Train with LEEPCallback" in page.texts("main")[0]
    page = opened([make_record(curve=AccuracyCurve(), trainable="scratch")])
    assert "There is no forecast. No validation yet." in page.texts("#transfer p")[0]


def test_any_width_of_window_and_light_and_dark(opened):
    page = opened(RECORDS)
    charts = "[...document.querySelectorAll('.chart')]"
    for width in (360, 800, 1900):
        page.resize(width, 700)
        page.run(f"return {charts}.every((box) => box.firstChild?.getAttribute('width') <= box.clientWidth)")
        assert page.value("document.documentElement.scrollWidth") <= width
    colors = "getComputedStyle(document.querySelector('.leep')).backgroundColor"
    assert page.value(colors) == "rgb(255, 255, 255)"
    page.theme("dark")
    assert page.value(colors) == "rgb(20, 23, 28)"


def test_a_thousand_transfers(opened):
    forecast = AccuracyForecast(value=0.7, low=0.6, high=0.8, coverage=0.9, trainable="head", basis="9 rows")
    page = opened([transfer(f"source {i}", i / 1000, 1 + i % 28, forecast=forecast) for i in range(1000)])
    assert page.value("document.querySelectorAll('.transfers tbody tr').length") == 1000
    took = page.value(
        "(() => { const start = performance.now(); document.querySelector('th[data-title^=LEEP] button').click(); "
        "document.body.offsetHeight; return performance.now() - start; })()"
    )
    assert took < 5000  # milliseconds, on a busy machine


def test_tab_of_tensorboard(browser, tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run", version="v")
    content = {"record": transfer("resnet", 0.7, association=ASSOCIATION).to_dict(), "ended": False}
    log_transfer(logger, "leep/transfer", content, 0)
    so_far = {"curve": {"epochs": [1], "accuracy": [0.25]}, "running": [[1, 0.5, 0.4, 0.6]]}
    log_transfer(logger, "leep/transfer_so_far", so_far, 5)
    browser.theme("light")
    browser.resize(1400, 900)
    browser.complaints(), browser.requests()
    with tensorboard("--logdir", str(tmp_path), "--path_prefix=/a/b") as address:
        browser.open(f"{address}/?darkMode=true#lightning_leep")
        frame = "document.querySelector('iframe')?.contentDocument"
        browser.run(f"return !!{frame}?.querySelector('#transfer')")
        browser.driver.switch_to.frame(browser.driver.find_element("css selector", "iframe"))
        assert column(browser, "run") == ["run/v"]
        assert column(browser, "outcome") == ["not ended"]
        assert "Best accuracy so far 25.0% in 1 epoch." in browser.texts("#transfer p")[0]
        assert "under way or was killed. It last wrote on 20" in browser.texts("#transfer p")[0]
        assert browser.texts(".heat tbody th") == ["cat", MARKUP]
        browser.run("return getComputedStyle(document.body).backgroundColor === 'rgb(20, 23, 28)'")  # as TensorBoard
        log_transfer(logger, "leep/transfer", {**content, "ended": True}, 9)
        browser.run(
            "if (document.querySelector('#transfer p').textContent.includes('killed'))"
            "{ document.querySelector('.reload').click(); return false; } return true"
        )
        assert column(browser, "outcome")[0].startswith("inside")
        own = [text for text in browser.complaints() if "lightning_leep" in text.split("#")[0]]
        assert own == []
        hosts = {url.split("/")[2].split(":")[0] for url in browser.requests() if url.startswith("http")}
        assert hosts <= {"localhost", "127.0.0.1", address.split("/")[2].split(":")[0]}
