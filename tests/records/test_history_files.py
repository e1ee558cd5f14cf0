"""What lies in the folder of a history and is not a record of this library."""

import os
import warnings

import pytest

from lightning_leep.records import load_history, save_record
from lightning_leep.records.history import MAX_BYTES
from tests._helpers.simulated_transfers import make_record


@pytest.mark.timeout(60)
def test_what_is_not_a_record_is_passed_over_and_not_waited_for(tmp_path, tmp_path_factory):
    """A pipe, devices, a file that is too large, infinite scores, a name that commands the terminal."""
    save_record(make_record(), tmp_path)
    elsewhere = save_record(make_record(), tmp_path_factory.mktemp("elsewhere"))
    (tmp_path / "link.json").symlink_to(elsewhere)  # which is read
    os.mkfifo(tmp_path / "20260101T000000-0.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "stdin.json").symlink_to("/dev/stdin")
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole, which takes no room
    text = make_record().to_json()
    leep = next(part for part in text.split(",") if '"leep":' in part)
    for number in ("Infinity", "-Infinity", "1e999"):
        (tmp_path / f"{number}.json").write_text(text.replace(leep, f"{leep.split(':')[0]}: {number}", 1))
    (tmp_path / "\x1b[31mred\n.json").write_text("{")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(load_history(tmp_path)) == 2
    (message,) = (str(warning.message) for warning in caught)
    assert message.startswith("Left out 8 of 10 files")
    assert "20260101T000000-0.json (not a regular file)" in message
    assert "large.json (larger than 16 MiB)" in message
    for name in ("zero", "stdin", "Infinity", "-Infinity", "1e999", r"\x1b[31mred\n"):
        assert f"{name}.json (" in message
    assert message.isprintable()
