"""One base class for the Trainers of both import styles, ``pytorch_lightning`` and ``lightning.pytorch``."""

from typing import TYPE_CHECKING

import pytorch_lightning as pl


def _callback_classes() -> tuple[type, ...]:
    try:
        from lightning.pytorch.callbacks import Callback
    except Exception:  # not installed, or not in working order: nobody uses it then
        return (pl.Callback,)
    return (pl.Callback, Callback)


if TYPE_CHECKING:

    class TrainerCallback(pl.Callback):
        """Base class of a callback that both Trainers accept."""

else:
    # The two packages define the class twice. A Trainer takes any object in a list of callbacks, but a single callback
    # must be an instance of its own class, and LightningCLI accepts no other in a configuration.
    TrainerCallback = type(
        "TrainerCallback",
        _callback_classes(),
        {"__doc__": "Base class of a callback that both Trainers accept.", "__module__": __name__},
    )
