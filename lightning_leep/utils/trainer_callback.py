"""One base class for the Trainers of both import styles, ``pytorch_lightning`` and ``lightning.pytorch``."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def callback_classes() -> tuple[type, ...]:
    """Return the class ``Callback`` of each Lightning that is imported, or import the first one that is installed.

    The other one is never imported: it would redirect Lightning's messages to its own logger.
    """
    imported = [module for name in PACKAGES if (module := sys.modules.get(name)) is not None]
    if not imported:
        installed = [name for name in PACKAGES if find_spec(name.partition(".")[0]) is not None]
        if not installed:
            raise ImportError(
                "The callbacks of lightning_leep need Lightning: `pip install pytorch-lightning`, or `lightning`."
            )
        imported = [import_module(installed[0])]
    return tuple(module.Callback for module in imported)


if TYPE_CHECKING:
    from pytorch_lightning import Callback as TrainerCallback
else:

    class TrainerCallback(*callback_classes()):
        """Base class of a callback that both Trainers accept.

        A Trainer wants its own ``Callback`` for a single one, and LightningCLI in a configuration.
        """

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            """Create a callback for every Lightning that has been imported by now."""
            TrainerCallback.__bases__ = callback_classes()
            return super().__new__(cls)
