"""What a callback knows of a fit, kept for when that fit goes on."""

from dataclasses import asdict
from itertools import count
from typing import Any, ClassVar

from lightning_leep.callbacks.fault_barrier import FaultBarrier
from lightning_leep.callbacks.fit.watch import TransferWatch
from lightning_leep.callbacks.trainer_callback import TrainerCallback
from lightning_leep.forecast import AccuracyForecast
from lightning_leep.layers.trained_part import TrainedPart
from lightning_leep.records import AccuracyCurve
from lightning_leep.records.report import TransferabilityReport


class ResumableCallback(TrainerCallback):
    """A callback with a name of its own in checkpoints, that keeps report, forecast and curve there.

    A fit goes on from a checkpoint, or if a Trainer that has trained a module is told to fit the same one again.

    Args:
        name: Name in checkpoints and logs; None until a Trainer numbers its callbacks.
        strategy: The user's word for what is trained, if there is one.
        strict: Whether faults are raised.
    """

    _instances: ClassVar[count] = count()

    def __init__(self, name: str | None, strategy: str | None, strict: bool) -> None:
        super().__init__()
        self.name = name
        self.strict = strict
        self._barrier = FaultBarrier(strict)
        self._strategy = strategy
        self._fitted: tuple[int, int] | None = None
        self._watch: TransferWatch | None = None
        # Two callbacks must be told apart before a Trainer numbers them.
        self._automatic_name = f"instance {next(self._instances)}"
        self._forget()

    def _forget(self) -> None:
        self.report: TransferabilityReport | None = None
        self.forecast: AccuracyForecast | None = None
        self._past_curve = AccuracyCurve()
        self._past_seconds: tuple[float, ...] = ()
        self._first_epoch = 0
        self._trained = TrainedPart(self._strategy)

    @property
    def curve(self) -> AccuracyCurve:
        """Accuracy at each validation of this fit."""
        return self._past_curve if self._watch is None else self._watch.curve

    @property
    def log_name(self) -> str:
        """First part of the names of everything that is logged, once a Trainer has set the callback up."""
        return self.name or self._automatic_name

    @property
    def state_key(self) -> str:
        """The callback's name in checkpoints."""
        return self._generate_state_key(name=self.log_name)

    def state_dict(self) -> dict[str, Any]:
        """Report, forecast, curve and what is trained as plain values; nothing of the source."""
        past = self._past_curve, self._past_seconds
        curve, seconds = past if self._watch is None else self._watch.measured()
        return {
            "report": None if self.report is None else self.report.to_dict(),
            "forecast": None if self.forecast is None else asdict(self.forecast),
            "curve": {"epochs": list(curve.epochs), "accuracy": list(curve.accuracy)},
            "seconds": list(seconds),
            "first_epoch": self._first_epoch,
            "trained": self._trained.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        with self._barrier.contain("read its report from the checkpoint", "The source is scored again if it can be."):
            report, forecast = state_dict["report"], state_dict["forecast"]
            curve, seconds = AccuracyCurve(**state_dict["curve"]), tuple(state_dict["seconds"])
            self._first_epoch = state_dict["first_epoch"]
            self._trained.load_state_dict(state_dict["trained"])
            self.forecast = None if forecast is None else AccuracyForecast(**forecast)
            self.report = None if report is None else TransferabilityReport.from_dict(report)
            self._past_curve, self._past_seconds = curve, seconds

    def _set_up(self, trainer: Any, pl_module: Any) -> None:
        """Forget the previous fit, unless the one that begins goes on with it."""
        # Comparing identities is safe: a Trainer keeps its module alive until it has the next one.
        fitted, before = (id(trainer), id(pl_module)), self._fitted
        if fitted != before or trainer.global_step == 0:
            self._forget()  # what a checkpoint holds is loaded after this
            if before is not None and before[0] == fitted[0]:
                self._first_epoch = trainer.current_epoch  # a Trainer counts on with the next module
        self._fitted, self._watch = fitted, None
        self._barrier.reset()
