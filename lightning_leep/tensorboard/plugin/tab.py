"""The tab "Transfer" of TensorBoard.

TensorBoard imports this module at its start, without catching errors, and asks the plugin for every run: so it imports
nothing but TensorBoard, and reads the records when the tab is opened.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins.base_plugin import FrontendMetadata, TBContext, TBPlugin
from werkzeug import Response, wrappers

from lightning_leep.tensorboard.plugin import PLUGIN_NAME, RANKING_TAG, SO_FAR_TAG, TRANSFER_TAG

if TYPE_CHECKING:
    from lightning_leep.records.transfer import TransferRecord

STATIC = Path(__file__).parent / "static"
#: All that is served from ``STATIC``: each file has a route of its own, so that no path is ever made from a request.
FILES = {
    **dict.fromkeys(("arithmetic.js", "svg.js", "charts.js", "parts.js", "page.js", "tab.js"), "text/javascript"),
    "page.css": "text/css",
}
#: Rankings that the tab shows, the newest.
MOST_RANKINGS = 5


class TransferPlugin(TBPlugin):
    """Serves the page, and what runs have logged about their transfers."""

    plugin_name = PLUGIN_NAME

    def __init__(self, context: TBContext) -> None:
        self._provider = context.data_provider

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        """The routes below ``/data/plugin/lightning_leep``."""
        files = {f"/{name}": wrappers.Request.application(partial(_serve_file, name)) for name in FILES}
        return {**files, "/transfers": wrappers.Request.application(self._serve_transfers)}

    def is_active(self) -> bool:
        """False: TensorBoard shows the tab by itself once a run has data of this plugin."""
        return False

    def frontend_metadata(self) -> FrontendMetadata:
        """The module that draws the tab in its frame."""
        return FrontendMetadata(es_module_path="/tab.js", tab_name="Transfer")

    def _serve_transfers(self, request: wrappers.Request) -> Response:
        from lightning_leep.records.ranking import Ranking
        from lightning_leep.tensorboard.plugin.page_data import page_data
        from lightning_leep.utils.checks import printable

        context, experiment = plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)
        read = {} if self._provider is None else self._provider.read_tensors(
            context, experiment_id=experiment, plugin_name=PLUGIN_NAME, downsample=1
        )  # fmt: skip
        records, more, problems = [], [], []
        rankings: dict[str, float] = {}  # as JSON, which runs may share, and when it was written last
        for run, tags in sorted(read.items()):
            for tag, series in sorted(tags.items()):
                if tag.endswith(SO_FAR_TAG):
                    continue
                so_far = tags.get(f"{tag.removesuffix(TRANSFER_TAG)}{SO_FAR_TAG}", [])
                try:
                    if tag.endswith(RANKING_TAG):
                        ranking = Ranking.from_dict(_content(series[-1])).to_json()
                        rankings[ranking] = max(series[-1].wall_time, rankings.get(ranking, 0.0))
                        continue
                    record, extra = newest(series[-1], so_far[-1] if so_far else None)
                except Exception as error:  # one broken run must not hide the others
                    problems.append(f"Left out {tag} of run {run}: {error}"[:300])
                    continue
                name = run if tag.startswith("leep/") else f"{run} {tag.rpartition('/')[0]}"
                records.append(record)
                more.append({"run": name, **extra})
        newest_first = sorted(rankings, key=rankings.__getitem__, reverse=True)[:MOST_RANKINGS]
        shown = [Ranking.from_dict(json.loads(ranking)) for ranking in newest_first]
        content = {**page_data(records, shown, more), "problems": list(map(printable, problems))}
        return http_util.Respond(request, json.dumps(content, allow_nan=False), "application/json")


def newest(last: Any, so_far: Any = None) -> tuple["TransferRecord", dict[str, Any]]:
    """The record in the last tensor of a transfer, and what else is known of its run.

    ``so_far`` is the last tensor that it wrote while it was under way. ``last_written`` is None once an end is written:
    until then the run is under way or was killed, which nobody can tell from its files.
    """
    from lightning_leep.records.transfer import TransferRecord

    content, written = _content(last, "record"), last.wall_time
    record = TransferRecord.from_dict(content["record"])
    if content.get("ended") is True:
        return record, {"last_written": None}
    if so_far is not None and so_far.wall_time >= written:
        written = so_far.wall_time
        with suppress(ValueError):  # the start is known all the same
            later = _content(so_far, "curve", "running")
            changed = {"curve": later["curve"], "running": later["running"], "wall_seconds": []}
            record = TransferRecord.from_dict({**content["record"], **changed})
    return record, {"last_written": datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")}


def _content(datum: Any, *fields: str) -> Mapping[str, Any]:
    """The JSON object in a tensor of one string."""
    try:
        content = json.loads(datum.numpy.item())
    except (AttributeError, TypeError, ValueError, RecursionError):
        content = None
    if not isinstance(content, Mapping) or not content.keys() >= set(fields):
        raise ValueError("not a transfer")
    return content


def _serve_file(name: str, request: wrappers.Request) -> Response:
    return http_util.Respond(request, (STATIC / name).read_bytes(), FILES[name])
