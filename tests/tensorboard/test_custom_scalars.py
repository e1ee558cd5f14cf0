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
from tests._helpers.small_transfer import FEW_SCORES, Classifier, fit, make_source

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_figures", "no_forks")]


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


def test_the_callback_writes_no_layout_and_shows_that_of_the_user_as_it_is(tmp_path):
    """Whether the user writes a layout before the fit, after it or never."""
    layout = {"accuracies": {title: ["Multiline", [title]] for title in ("val_acc", "leep/predicted_accuracy")}}
    for moment, shown in (("never", []), ("before", layout), ("after", layout)):
        logger = TensorBoardLogger(tmp_path, name=moment)
        if moment == "before":
            logger.experiment.add_custom_scalars(layout)
        callback = LEEPCallback(make_source(), history=False, strict=True, scoring=FEW_SCORES)
        fit(Classifier(), callback, logger=logger, max_epochs=1)
        if moment == "after":
            logger.experiment.add_custom_scalars(layout)
        logger.experiment.close()
        assert charts(tmp_path / moment) == [(title, list(titles)) for title, titles in dict(shown).items()]
