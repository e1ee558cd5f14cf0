"""CUSTOM SCALARS belong to the user: TensorBoard's own plugin is asked what it shows.

Nothing is written there. The plugin keeps one layout per run, the last, and merges those of several runs with a fault
(TensorBoard 2.21): once a run whose layout lacks some category comes first, charts that later runs add to that category
are lost. So a layout of ours would hide charts of the user's wherever it is put, in the run or in a folder of its own.
"""

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin
from werkzeug.test import Client

from lightning_leep import LEEPCallback
from tests._helpers.small_transfer import Classifier, fit, make_source

pytestmark = pytest.mark.usefixtures("no_figures")


def asker(folder):
    """Answers of the plugin to what a browser asks it, over every run in a folder."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    plugins = {}
    context = TBContext(
        logdir=str(folder),
        data_provider=MultiplexerDataProvider(multiplexer, str(folder)),
        plugin_name_to_instance=plugins,
    )
    plugins["scalars"] = ScalarsPlugin(context)
    apps = CustomScalarsPlugin(context).get_plugin_apps()
    return lambda path, **query: Client(apps[path]).get(query_string=query).get_json(force=True)


def charts(folder) -> list[tuple[str, list[str]]]:
    """Titles of the categories and of their charts, in the order in which they are shown."""
    categories = asker(folder)("/layout").get("category", [])
    return [(category["title"], [chart["title"] for chart in category["chart"]]) for category in categories]


def fit_run(folder, before=None, after=None) -> LEEPCallback:
    """A run with the callback, and the layouts that its user writes."""
    logger, callback = TensorBoardLogger(folder, name=""), LEEPCallback(make_source(), history=False, strict=True)
    if before:
        logger.experiment.add_custom_scalars(before)
    fit(Classifier(), callback, logger=logger)
    if after:
        logger.experiment.add_custom_scalars(after)
    logger.experiment.close()
    return callback


def test_the_callback_writes_no_layout(tmp_path):
    fit_run(tmp_path)
    assert charts(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_users_layout_is_shown_as_it_is(tmp_path, moment):
    layout = {"accuracies": {title: ["Multiline", [title]] for title in ("val_acc", "leep/predicted_accuracy")}}
    fit_run(tmp_path, **{moment: layout})
    assert charts(tmp_path) == [("accuracies", ["val_acc", "leep/predicted_accuracy"])]
