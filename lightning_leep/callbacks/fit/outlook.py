"""What is expected of a fit: forecast by one process before the first step, and told to all of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_leep.callbacks.fault_barrier import FaultBarrier
from lightning_leep.callbacks.fit.state import FitState
from lightning_leep.callbacks.fit.trainer_facts import TrainerFacts
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
from lightning_leep.layers import Advice, advise
from lightning_leep.records import AccuracyCurve, History, load_history
from lightning_leep.records.folder import Folder
from lightning_leep.utils.distributed import on_every_process

#: Name of the task for :class:`FaultBarrier`: reading and writing one folder have one cause, and so one warning.
HISTORY_TASK = "use the history of transfers"
HISTORY_ADVICE = "`history=` must name a folder or fsspec URL that can be read and written; False disables the history."


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is expected of a fit."""

    accuracy: AccuracyForecast | None = None  #: the accuracy that it will reach; None if nothing can be said
    advice: Advice | None = None  #: what to train; None if nothing can be compared
    trained_from: str = ""  #: with "part", the first layer that is trained; empty if unknown
    convergence: ConvergenceForecast | None = None  #: how fast it will be; None without enough earlier transfers
    #: Earlier transfers that trained the same part; empty on all processes but the first.
    history: History = field(default_factory=History)
    facts: TrainerFacts = field(default_factory=TrainerFacts)  #: what the Trainer plans and uses

    @property
    def expected(self) -> MeanCurve | None:
        """The accuracy expected after each epoch of this fit; None unless there is a forecast of both kinds."""
        if self.accuracy is None or self.convergence is None:
            return None
        curve = self.convergence.accuracy(self.accuracy)
        kept = sum(epoch <= (self.facts.max_epochs or math.inf) for epoch in curve.epochs)
        columns = {name: getattr(curve, name)[:kept] for name in ("epochs", "mean", "low", "high")}
        return replace(curve, **columns) if kept else None

    def update(self, curve: AccuracyCurve) -> RunningForecast | None:
        """The forecast given the validations so far. Without a forecast before training it needs a few of them."""
        if self.accuracy is None and len(curve) < MIN_VALIDATIONS:
            return None
        facts, convergence = self.facts, self.convergence
        return update_forecast(
            self.accuracy, curve, max_epochs=facts.max_epochs, convergence=convergence, test_size=facts.test_size
        )


def look_ahead(
    trainer: Any,
    barrier: FaultBarrier,
    state: FitState,
    facts: TrainerFacts,
    folder: Folder | None,
    source: Callable[..., Any] | None,
    trainable: str,
) -> Outlook:
    """Forecast on the first process and tell the others, which may not see the folder.

    The state gets the forecast, unless it has one. If the folder fails, the forecast is made from the report alone. The
    folder holds the records of earlier transfers, if there is a history; the source may be the module's own.
    """
    device, report, trained_from = trainer.strategy.root_device, state.report, ""
    if trainable == "part" and report is not None:
        with barrier.contain("find the first trained layer", "The forecast is made without it."):
            trained_from = state.trained.first_layer(source, report)
    history = History()
    if folder is not None:
        with barrier.contain(HISTORY_TASK, HISTORY_ADVICE):
            history = on_every_process(lambda: load_history(folder) if trainer.is_global_zero else History(), device)

    def forecast() -> tuple[AccuracyForecast | None, ConvergenceForecast | None, Advice | None]:
        if report is None or not trainer.is_global_zero:
            return None, None, None
        made = state.forecast or forecast_accuracy(
            report, history, trainable=trainable, trained_from=trained_from, test_size=facts.test_size
        )
        advice = None
        with barrier.contain("advise what to train", "The forecast is logged all the same."):
            advice = None if trainable == "scratch" else advise(report, history, test_size=facts.test_size)
        # The whole history: records of training from scratch are the references of others.
        return made, forecast_convergence(report, history, trainable=trainable), advice

    made, convergence, advice = None, None, None
    with barrier.contain("forecast the accuracy", "The report is logged all the same."):
        made, convergence, advice = trainer.strategy.broadcast(on_every_process(forecast, device))
    state.forecast = made
    if advice is not None and advice.choice is not None:
        state.recommended = state.recommended or advice.choice.trained_from
    same = history.filter(trainable=trainable)
    known = {"accuracy": made, "advice": advice, "convergence": convergence, "history": same}
    return Outlook(**known, trained_from=trained_from, facts=facts)
