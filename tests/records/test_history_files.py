"""What lies in the folder of a history and is not a record of this library."""

import os
import warnings

import pytest

from lightning_leep.records import load_history, save_record
from lightning_leep.records.history import MAX_BYTES
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


@pytest.mark.timeout(60)
def test_a_pipe_is_passed_over_and_not_waited_for(folder):
    os.mkfifo(folder / "20260101T000000-0.json")
    count, (message,) = load(folder)
    assert count == 1
    assert "20260101T000000-0.json (not a regular file)" in message


@pytest.mark.timeout(60)
@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin"])
def test_a_link_to_a_device_is_passed_over(folder, target):
    (folder / "link.json").symlink_to(target)
    count, (message,) = load(folder)
    assert count == 1
    assert "link.json (" in message


def test_a_link_to_a_record_is_read(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = save_record(make_record(), elsewhere)
    (folder / "link.json").symlink_to(path)
    assert load(folder) == (2, [])


def test_a_file_that_is_too_large_is_not_read(folder):
    with open(folder / "large.json", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole, which takes no room
    count, (message,) = load(folder)
    assert count == 1
    assert "large.json (larger than 16 MiB)" in message


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
