"""What is expected of a fit, made by one process before the first step and known to all of them."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_leep.callbacks.fault_barrier import FaultBarrier
from lightning_leep.forecast import (
    AccuracyForecast,
    ConvergenceForecast,
    MeanCurve,
    RunningForecast,
    forecast_accuracy,
    forecast_convergence,
    update_forecast,
)
from lightning_leep.forecast.running import MIN_VALIDATIONS
from lightning_leep.records import AccuracyCurve, History, load_history
from lightning_leep.records.history import Folder
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.utils.distributed import on_every_process

#: Name of the task for :class:`FaultBarrier`: reading and writing one folder are one cause for one warning.
HISTORY_TASK = "use the history of transfers"
HISTORY_ADVICE = "`history=` names a folder or an fsspec URL that can be read and written; False keeps no history."


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is expected of a fit.

    Attributes:
        strategy: What is trained.
        accuracy: The accuracy that it will reach; None where nothing can be said.
        convergence: How fast; None without enough earlier transfers.
        history: Earlier transfers of the same strategy; empty on all processes but the first.
        max_epochs: Epochs after which training ends at the latest; None if that is not known.
        test_size: Rows of a validation, if known.
        first_epoch: Epochs that the Trainer had trained another module for before; they count in ``max_epochs``.
    """

    strategy: str
    accuracy: AccuracyForecast | None = None
    convergence: ConvergenceForecast | None = None
    history: History = field(default_factory=History)
    max_epochs: float | None = None
    test_size: int | None = None
    first_epoch: int = 0

    @property
    def expected(self) -> MeanCurve | None:
        """Accuracy expected at each epoch of this fit; None without a forecast of either kind."""
        if self.accuracy is None or self.convergence is None:
            return None
        curve = self.convergence.accuracy(self.accuracy)
        kept = sum(epoch <= (self.max_epochs or math.inf) for epoch in curve.epochs)
        if not kept:
            return None
        return replace(
            curve, epochs=curve.epochs[:kept], mean=curve.mean[:kept], low=curve.low[:kept], high=curve.high[:kept]
        )

    def update(self, curve: AccuracyCurve) -> RunningForecast | None:
        """The forecast given the validations so far; from these alone if there are a few of them."""
        if self.accuracy is None and len(curve) < MIN_VALIDATIONS:
            return None
        end = None if self.max_epochs is None else self.max_epochs - self.first_epoch
        curve = AccuracyCurve(tuple(epoch - self.first_epoch for epoch in curve.epochs), curve.accuracy)
        return update_forecast(
            self.accuracy, curve, max_epochs=end, convergence=self.convergence, test_size=self.test_size
        )


def look_ahead(
    trainer: Any,
    barrier: FaultBarrier,
    report: TransferabilityReport,
    *,
    folder: Folder | None,
    strategy: str,
    test_size: int | None,
    accuracy: AccuracyForecast | None,
    first_epoch: int = 0,
) -> Outlook:
    """Make the forecasts on the first process and tell them to the others, which may not see the folder.

    Args:
        trainer: The trainer, in ``fit``.
        barrier: Contains faults of the folder, after which the forecast rests on the report alone.
        report: The report.
        folder: Where earlier transfers are; None for nowhere.
        strategy: What is trained.
        test_size: Rows of a validation, if known.
        accuracy: The forecast that a checkpoint brought, which stays as it was.
        first_epoch: Epochs that the Trainer had trained another module for before.
    """
    device = trainer.strategy.root_device
    history = History()
    if folder is not None:

        def load() -> History:
            return load_history(folder) if trainer.is_global_zero else History()

        with barrier.contain(HISTORY_TASK, HISTORY_ADVICE):
            history = on_every_process(load, device)

    def forecast() -> tuple[AccuracyForecast | None, ConvergenceForecast | None]:
        if not trainer.is_global_zero:
            return None, None
        made = accuracy or forecast_accuracy(report, history, trainable=strategy, test_size=test_size)
        # Records of training from scratch are references of others, so the whole history goes in.
        return made, forecast_convergence(report, history, trainable=strategy)

    made, convergence = None, None
    with barrier.contain("forecast the accuracy", "The report is logged all the same."):
        made, convergence = trainer.strategy.broadcast(on_every_process(forecast, device))
    return Outlook(
        strategy=strategy,
        accuracy=made,
        convergence=convergence,
        history=history.filter(trainable=strategy),
        max_epochs=planned_epochs(trainer),
        test_size=test_size,
        first_epoch=first_epoch,
    )


def planned_epochs(trainer: Any) -> float | None:
    """Epochs after which the trainer stops by ``max_epochs`` or ``max_steps``; None if it never does."""
    ends = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        ends.append(float(trainer.max_epochs))
    batches = trainer.num_training_batches
    if trainer.max_steps is not None and trainer.max_steps > 0 and 0 < batches < math.inf:
        # An epoch's last step may accumulate fewer batches than the others.
        ends.append(trainer.max_steps / math.ceil(batches / trainer.accumulate_grad_batches))
    return min(ends, default=None)
