"""The tab "Transfer" of TensorBoard.

TensorBoard imports this module at its start, without catching errors, and asks the plugin for every run: so it imports
nothing but TensorBoard, and reads the records when the tab is opened.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins.base_plugin import FrontendMetadata, TBContext, TBPlugin
from werkzeug import Response, wrappers

from lightning_leep.tensorboard.plugin import PLUGIN_NAME

if TYPE_CHECKING:
    from lightning_leep.records.transfer import TransferRecord

STATIC = Path(__file__).parent / "static"
#: All that is served from ``STATIC``: each file has a route of its own, so that no path is ever made from a request.
FILES = {
    **dict.fromkeys(("arithmetic.js", "svg.js", "charts.js", "parts.js", "page.js", "tab.js"), "text/javascript"),
    "page.css": "text/css",
}
#: Tensors of a tag that are read. The last of them counts; both data servers keep at least ten.
NEWEST = 10


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
        from lightning_leep.tensorboard.plugin.page_data import page_data

        context, experiment = plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)
        read = {} if self._provider is None else self._provider.read_tensors(
            context, experiment_id=experiment, plugin_name=PLUGIN_NAME, downsample=NEWEST
        )  # fmt: skip
        records, more, problems = [], [], []
        for run, tags in sorted(read.items()):
            for tag, series in sorted(tags.items()):
                try:
                    record, extra = newest([datum.numpy for datum in series])
                except Exception as error:  # one broken run must not hide the others
                    problems.append(f"Left out {tag} of run {run}: {error}"[:300])
                    continue
                name = run if tag.startswith("leep/") else f"{run} {tag.rpartition('/')[0]}"
                records.append(record)
                more.append({"run": name, **extra})
        content = {**page_data(records, more=more), "problems": problems}
        return http_util.Respond(request, json.dumps(content, allow_nan=False), "application/json")


def newest(tensors: list[Any]) -> tuple["TransferRecord", dict[str, Any]]:
    """The record in the last of the tensors of a tag, and what else was logged with it.

    A run that was continued from a checkpoint does not score again: what its source classes stand for is in an earlier
    tensor then.
    """
    from lightning_leep.records.transfer import TransferRecord

    contents = [_content(tensor) for tensor in tensors]
    if not contents or contents[-1] is None:
        raise ValueError("not a transfer")
    record = TransferRecord.from_dict(contents[-1]["record"])
    associations = [found for content in contents if (found := _association(content)) is not None]
    extra = {"association": associations[-1] if associations else None}
    return record, {"running_now": not contents[-1].get("ended"), **extra}


def _content(tensor: Any) -> Mapping[str, Any] | None:
    """The JSON object in a tensor of one string; None if there is none."""
    try:
        content = json.loads(tensor.item())
    except (AttributeError, TypeError, ValueError, RecursionError):
        return None
    return content if isinstance(content, Mapping) and "record" in content else None


def _association(content: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """P(y|z) with its names, if it is what the page can draw."""
    found = (content or {}).get("association")
    if not isinstance(found, Mapping) or set(found) != {"targets", "sources", "p", "left_out"}:
        return None
    if not all(isinstance(text, str) for text in (*found["targets"], *found["sources"], found["left_out"])):
        return None  # NaN, say, which would make the JSON of all runs invalid
    size = len(found["targets"]), len(found["sources"])
    return found if (len(found["p"]), *{len(row) for row in found["p"]}) == size and all(_cells(found)) else None


def _cells(association: Mapping[str, Any]) -> Iterator[bool]:
    for row in association["p"]:
        yield from (isinstance(value, int | float) and 0 <= value <= 1 for value in row)


def _serve_file(name: str, request: wrappers.Request) -> Response:
    return http_util.Respond(request, (STATIC / name).read_bytes(), FILES[name])
