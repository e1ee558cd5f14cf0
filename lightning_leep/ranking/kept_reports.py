"""Reports of sources that were scored, kept in a folder, so that an interrupted ranking goes on."""

import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lightning_leep.records.folder import Folder, open_folder, write_whole
from lightning_leep.records.report import TransferabilityReport


class KeptReports:
    """A folder of reports, a path or fsspec URL, with a file for each source; None keeps nothing."""

    def __init__(self, folder: Folder | None) -> None:
        self._found: list[Mapping[str, Any]] = []
        if folder is None:
            self._fs = None
            return
        self._fs, self._root = open_folder(folder)
        self._fs.makedirs(self._root, exist_ok=True)
        for path in sorted(self._fs.ls(self._root, detail=False)):
            if path.endswith(".json"):
                with suppress(OSError, ValueError):
                    self._found.append(json.loads(self._fs.cat_file(path)))

    @property
    def is_used(self) -> bool:
        """Whether there is a folder."""
        return self._fs is not None

    def load(self, setting: Mapping[str, Any]) -> TransferabilityReport | None:
        """The report of a source in the same setting; None if there is none, or if it is damaged."""
        for values in self._found:
            with suppress(ValueError, TypeError, KeyError):
                if values["setting"] == setting:
                    return TransferabilityReport.from_dict(values["report"])
        return None

    def save(self, setting: Mapping[str, Any], report: TransferabilityReport) -> None:
        """Write a report, with what decides it (source, rows, options); the file appears as a whole or not at all."""
        if self.is_used:
            text = json.dumps({"setting": setting, "report": report.to_dict()}, allow_nan=False, indent=1)
            write_whole(self._fs, self._root, f"source-{uuid.uuid4().hex}.json", text.encode())
