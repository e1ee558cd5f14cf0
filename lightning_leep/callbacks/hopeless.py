"""When a run is not worth its time any more."""

from typing import Any

from lightning_leep.callbacks.fit.outlook import Outlook
from lightning_leep.forecast import RunningForecast, is_hopeless
from lightning_leep.layers.trained_part import is_finetuning
from lightning_leep.records import AccuracyCurve
from lightning_leep.utils.checks import check_real

#: Validations in a row that have to exclude the target (one may be a bad one), and the part of the training between the
#: first and the last of them (there may be many in each epoch).
PATIENCE, SPAN = 4, 0.1


def check_target(target: float | None) -> float | None:
    """The target accuracy of ``stop_when_hopeless``.

    Raises:
        TypeError: If it is no number.
        ValueError: If it does not lie in 0..1.
    """
    if target is None:
        return None
    check_real("stop_when_hopeless", target, 0, 1, missing=False)
    return float(target)


class HopelessRule:
    """Says when several validations in a row have excluded a target accuracy.

    Args:
        target: The wanted accuracy; None excludes nothing.
    """

    def __init__(self, target: float | None) -> None:
        self.target = target
        self._excluded = 0
        self._asked = 0

    def reason(
        self, running: RunningForecast | None, curve: AccuracyCurve, max_epochs: float | None = None
    ) -> str | None:
        """Why the run need not go on, in a sentence; None if it may, or after no new validation.

        Args:
            running: The forecast after the last validation, if there is one.
            curve: The validations so far.
            max_epochs: Epochs of the whole training, if known.
        """
        if self.target is None or running is None or running.num_validations in (0, self._asked):
            return None
        self._asked = running.num_validations
        self._excluded = self._excluded + 1 if is_hopeless(running, self.target) else 0
        if self._excluded < PATIENCE:
            return None
        if curve.epochs[-1] - curve.epochs[-self._excluded] < SPAN * (max_epochs or 0):
            return None
        return (
            f"After {curve.epochs[-1]:g} epochs its best accuracy is expected to end between {running.low:.3f} and "
            f"{running.high:.3f} ({100 * running.coverage:g}% interval), which excludes the {self.target:g} of "
            f"`stop_when_hopeless` at {self._excluded} validations in a row."
        )

    def obstacle(self, trainer: Any, monitor: str | None, outlook: Outlook) -> str:
        """Why the rule can never end this fit, in a sentence; empty if it can."""
        if self.target is None:
            return ""
        if monitor is None:
            return "Without `monitor` no accuracy is known."
        # A jump that is still to come does not show in the curve, but in those of earlier transfers.
        if outlook.convergence is None and any(map(is_finetuning, trainer.callbacks)):
            return (
                "A callback unfreezes layers, and the history holds too few such transfers to foresee what that does."
            )
        return ""


def may_end(trainer: Any, epochs: int, outlook: Outlook) -> bool:
    """Whether training may end now: what the Trainer has to do is done, and it does not end by itself.

    Args:
        trainer: The trainer, in ``fit``.
        epochs: Epochs that it has finished.
        outlook: What is expected of the fit.
    """
    if epochs < (trainer.min_epochs or 0) or trainer.global_step < (trainer.min_steps or 0):
        return False
    if 0 < (trainer.max_steps or 0) <= trainer.global_step:
        return False
    return outlook.max_epochs is None or epochs < outlook.max_epochs
