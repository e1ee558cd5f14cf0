"""Reports of sources that were scored, kept in a folder, so that an interrupted ranking goes on."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lightning_leep.records.folder import Folder, open_folder, write_whole
from lightning_leep.records.report import TransferabilityReport


@dataclass(frozen=True)
class KeptReports:
    """A folder of reports, one file a source.

    Args:
        folder: Path or fsspec URL; None keeps nothing.
        setting: What all sources of a ranking have in common. A report of another setting is not used.
    """

    folder: Folder | None
    setting: Mapping[str, Any]

    def load(self, name: str, source: Mapping[str, Any]) -> TransferabilityReport | None:
        """The report of a source; None if there is none, if it is damaged, or if it was of another setting."""
        if self.folder is None:
            return None
        fs, root = open_folder(self.folder)
        with suppress(OSError, ValueError, TypeError, KeyError):
            values = json.loads(fs.cat_file(f"{root.rstrip('/')}/{_file_name(name)}"))
            if values["setting"] == self._setting(source):
                return TransferabilityReport.from_dict(values["report"])
        return None

    def save(self, name: str, source: Mapping[str, Any], report: TransferabilityReport) -> None:
        """Write the report of a source as a whole or not at all."""
        if self.folder is not None:
            fs, root = open_folder(self.folder)
            fs.makedirs(root, exist_ok=True)
            values = {"source": name, "setting": self._setting(source), "report": report.to_dict()}
            write_whole(fs, root, _file_name(name), json.dumps(values, allow_nan=False, indent=1).encode())

    def _setting(self, source: Mapping[str, Any]) -> dict[str, str]:
        return {key: repr(value) for key, value in {**self.setting, **source}.items()}


def _file_name(name: str) -> str:
    """A name that any file system takes, another one for each source."""
    readable = re.sub(r"[^\w.-]+", "_", name)[:60].lstrip(".")
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.json"
