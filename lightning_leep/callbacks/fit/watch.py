"""One fit under observation: what it achieves, beside what was predicted."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from lightning_leep.callbacks.fit.logs import ADVICE, RunLogs
from lightning_leep.callbacks.fit.monitor import MonitorReader, explain_metric
from lightning_leep.callbacks.fit.outlook import HISTORY_ADVICE, HISTORY_TASK, Outlook
from lightning_leep.callbacks.fit.record import RecordKeeper
from lightning_leep.callbacks.fit.state import FitState
from lightning_leep.callbacks.fit.trainer_facts import epoch_of_validation
from lightning_leep.callbacks.source.scorer import ScoredSource
from lightning_leep.records import TransferRecord
from lightning_leep.records.curve import Reference
from lightning_leep.records.transfer import RunningPoint
from lightning_leep.tensorboard.figures.association import association_of
from lightning_leep.tensorboard.ranking import outcome_of

#: Forecasts during training that a record keeps.
MAX_RUNNING = 40


@dataclass(eq=False)
class TransferWatch:
    """Follows one fit, whose state has a report, from its first step to its end; the callback's hooks lead here."""

    logs: RunLogs
    state: FitState
    look_ahead: Callable[[str], Outlook]  #: what is expected, given what is trained
    outlook: Outlook
    monitor: str | None
    reference: Reference | None
    keeper: RecordKeeper

    def __post_init__(self) -> None:
        self.barrier = self.logs.barrier
        self.reader = MonitorReader(self.monitor)
        self.running: list[RunningPoint] = []
        state = self.state
        assert state.report is not None  # the source has been scored
        self.report = state.report
        self._start = time.perf_counter() - (state.seconds[-1] if state.seconds else 0.0)
        self._epoch_over: float | None = None  # the epoch that has ended, until its accuracy is taken

    def start(self, scored: ScoredSource | None, trainable: str) -> None:
        """Log the report, with the figures of the scoring pass if there was one."""
        if scored is not None and (joint := scored.report.joint) is not None:
            with self.barrier.contain("say what the source classes stand for", "Everything else is logged."):
                names = scored.target_class_names, scored.source_class_names
                self.state.association = association_of(joint, *names)
        with self.barrier.contain("log the report", ADVICE):
            self.logs.start(self.state, self.outlook, scored)
            self.logs.transfer(self._record(trainable, complete=False), ended=False)

    def forecast_again(self, trainable: str) -> None:
        """Replace the forecast if something else is trained than it was made for; on all processes together."""
        forecast = self.state.forecast
        if forecast is not None and forecast.trainable != trainable:
            self.state.forecast = None
            self.outlook = self.look_ahead(trainable)
            self.start(None, trainable)

    def start_validation(self, trainer: Any) -> None:
        """Remember the value from before the validation."""
        self.reader.before_validation(trainer.callback_metrics)

    def end_validation(self, trainer: Any) -> None:
        """Take the accuracy that validation logged."""
        with self._measuring():
            accuracy = self.reader.after_validation(trainer.callback_metrics)
            if accuracy is not None:
                self._take(epoch_of_validation(trainer, self.state), accuracy)
                if text := explain_metric(trainer, self.monitor, self.report):
                    self.barrier.warn("compare the monitored metric", f"LEEPCallback: {text}")

    def start_epoch(self, trainer: Any) -> None:
        """Take what the previous epoch logged outside validation, now that the module's own hooks are done."""
        self.take_logged_in_epoch(trainer)
        if self._epoch_over is not None:
            self._explain_missing(trainer, last=False)
        self._epoch_over = None
        self.reader.before_epoch(trainer.callback_metrics)

    def end_epoch(self, trainer: Any) -> None:
        """Note that an epoch is over; the module's own hook comes after this one."""
        self._epoch_over = float(trainer.current_epoch + 1 - self.state.first_epoch)

    def take_logged_in_epoch(self, trainer: Any) -> None:
        """Take the accuracy that the epoch that has ended logged outside validation, once it is there."""
        if self._epoch_over is not None:
            with self._measuring():
                accuracy = self.reader.after_epoch(trainer.callback_metrics)
                if accuracy is not None:
                    epoch, self._epoch_over = self._epoch_over, None
                    self._take(epoch, accuracy)

    def end(self, trainer: Any, stopped: str) -> None:
        """Take the last accuracy and log how the run came out; ``stopped`` says why it was cut short, if it was."""
        self.take_logged_in_epoch(trainer)
        self._explain_missing(trainer, last=True)
        self.conclude(stopped)

    def conclude(self, stopped: str = "") -> None:
        """Log how the run came out, as far as it came."""
        with self.barrier.contain("log how the run came out", ADVICE):
            self.logs.end(self.state, self.outlook, self.reference, stopped)

    def close(self, trainer: Any, complete: bool, saved: bool) -> None:
        """Log the record of a fit that is over; add it to the history if it is to be saved."""
        with self.barrier.contain(HISTORY_TASK, HISTORY_ADVICE):
            record = self._record(self.keeper.trainable or self.state.trained.word, complete)
            record = replace(record, order_held=outcome_of(record, self.outlook.history))
            if saved:
                self.keeper.save(trainer, record)
            self.logs.transfer(record, ended=True)
            self.keeper.show_ranking(self.logs, record.order_held)

    def _record(self, trainable: str, complete: bool) -> TransferRecord:
        """What is known of the fit, as a record. Of many running forecasts some are kept."""
        state, facts, step = self.state, self.outlook.facts, -(-len(self.running) // MAX_RUNNING) or 1
        return TransferRecord(
            report=self.report,
            curve=state.curve,
            trainable=trainable,
            trained_from=self.outlook.trained_from if trainable == "part" else "",
            recommended=state.recommended,
            association=state.association,
            forecast=state.forecast,
            running=tuple(self.running[::step]),
            wall_seconds=state.seconds,
            reference=self.reference,
            test_size=facts.test_size,
            optimizer=facts.optimizer,
            learning_rate=facts.learning_rate,
            target_name=self.keeper.target_name or facts.target_name,
            source_name=self.logs.source_name,
            complete=complete,
            ranking=self.keeper.readable_ranking(),
        )

    def _take(self, epoch: float, accuracy: float) -> None:
        self.logs.achieved(accuracy)  # before anything is computed that may fail
        self.state.add(epoch, accuracy, time.perf_counter() - self._start)
        running = None
        with self.barrier.contain("update the forecast", "The achieved accuracy is logged all the same."):
            running = self.outlook.update(self.state.curve)
            if running is not None:
                self.running.append((epoch, running.value, running.low, running.high))
        self.logs.validation(self.state.curve, self.outlook, self.reference, running)
        self.logs.transfer_so_far(self.state.curve, self.running)

    def _explain_missing(self, trainer: Any, last: bool) -> None:
        reader = self.reader
        if self.monitor is None or reader.found:
            return
        if last or reader.num_validations > 0 or not trainer.enable_validation:
            with self.barrier.contain("find the achieved accuracy", "Nothing else is affected."):
                others = [name for name in trainer.callback_metrics if not name.startswith(self.logs.prefix)]
                raise ValueError(reader.explain_missing(others, trainer.enable_validation))

    def _measuring(self) -> AbstractContextManager[None]:
        return self.barrier.contain(
            f"use the value of {self.monitor!r}", "`monitor` must name an accuracy in 0..1 that the module logs."
        )
