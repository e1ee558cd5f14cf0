"""What lies in the folder of a history and is not a record of this library."""

import warnings

import pytest

from lightning_leep.records import load_history, save_record
from tests._helpers.simulated_transfers import make_record


def load(folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = load_history(folder)
    return len(history), [str(w.message) for w in caught]


@pytest.fixture
def folder(tmp_path):
    save_record(make_record(), tmp_path)
    return tmp_path


def test_a_link_to_a_record_is_read(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = save_record(make_record(), elsewhere)
    (folder / "link.json").symlink_to(path)
    assert load(folder) == (2, [])


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "1e999"])
def test_a_record_with_an_infinite_score_is_left_out(folder, number):
    text = make_record().to_json()
    leep = next(part for part in text.split(",") if '"leep":' in part)
    (folder / "infinite.json").write_text(text.replace(leep, f"{leep.split(':')[0]}: {number}", 1))
    count, messages = load(folder)
    assert count == 1, messages
    assert "infinite.json" in messages[0]


def test_a_name_cannot_command_the_terminal_through_the_warning(folder):
    (folder / "\x1b[31mred\n.json").write_text("{")
    _, (message,) = load(folder)
    assert message.isprintable()
    assert r"\x1b[31mred\n.json" in message
