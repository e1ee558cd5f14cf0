"""Names that users give reach TensorBoard's Markdown as text."""

import markdown
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_leep.forecast import forecast_accuracy
from lightning_leep.tensorboard import report_markdown
from lightning_leep.tensorboard.words import code, escaped
from tests._helpers.simulated_transfers import make_report

HOSTILE = [
    "![x](http://a/b.png)",
    "[x](http://a)",
    "<img src=x onerror=y>",
    "a`![x](http://a)`b",
    r"\`![x](u)\`",
    "``![x](u)",
]


def made_of(text: str) -> str:
    """HTML as TensorBoard's text plugin makes it, before it removes what it does not allow."""
    return markdown.markdown(text, extensions=["markdown.extensions.tables", "markdown.extensions.fenced_code"])


@pytest.mark.parametrize("name", HOSTILE)
def test_names_load_nothing(name):
    report = make_report()
    forecast = forecast_accuracy(report, trainable=name)
    html = made_of(report_markdown(report, forecast, source_name=name, stopped=f"Below {name}."))
    assert not any(f"<{tag}" in html for tag in ("img", "a ", "script"))


@given(st.text(st.sampled_from("`\\![]()<>a*_&#\n "), max_size=30))
def test_no_text_becomes_markup(text):
    for html in (made_of(f"**Note.** {escaped(text)}"), made_of(f"Source {code(text)} scored")):
        assert not any(f"<{tag}" in html for tag in ("img", "a ", "a>", "em"))


def test_plain_sentences_and_code_stay_as_they_are():
    assert escaped("Pass `head=`, or 90% of C.") == "Pass `head=`, or 90% of C."
