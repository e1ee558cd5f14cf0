"""One fit under observation: what it achieves beside what was predicted."""

import math
import time
from contextlib import AbstractContextManager
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_leep.callbacks.fault_barrier import FaultBarrier
from lightning_leep.callbacks.fit.logs import ADVICE, RunLogs
from lightning_leep.callbacks.fit.monitor import EpochScale, MonitorReader, extended, missing_monitor_message
from lightning_leep.callbacks.fit.outlook import Outlook
from lightning_leep.callbacks.hopeless import HopelessRule, may_end
from lightning_leep.callbacks.source.scorer import ScoredSource
from lightning_leep.forecast import RunningForecast
from lightning_leep.records import AccuracyCurve
from lightning_leep.records.curve import Reference
from lightning_leep.records.report import TransferabilityReport


class TransferWatch:
    """Follows one fit from its first step to its end; the callback's hooks lead here.

    Args:
        logs: Where to write.
        barrier: Contains faults.
        report: The report.
        outlook: What is expected.
        monitor: Name of the accuracy that the module logs; None watches nothing.
        reference: What to compare with.
        curve: Validations of this fit before it was interrupted.
        seconds: Seconds of training before each of them.
        target: Accuracy without which training need not go on; None lets it.
    """

    def __init__(
        self,
        logs: RunLogs,
        barrier: FaultBarrier,
        report: TransferabilityReport,
        outlook: Outlook,
        monitor: str | None,
        reference: Reference | None,
        curve: AccuracyCurve,
        seconds: tuple[float, ...],
        target: float | None,
    ) -> None:
        self.logs = logs
        self.barrier = barrier
        self.report = report
        self.outlook = outlook
        self.monitor = monitor
        self.reference = reference
        self.curve = curve
        self.seconds = seconds
        self.running: RunningForecast | None = None
        self.stopped = ""
        self._rule = HopelessRule(target)
        self._start = time.perf_counter() - (seconds[-1] if seconds else 0.0)
        self.reader = None if monitor is None else MonitorReader(monitor)
        self._scale = EpochScale()
        self._epoch_is_over = False

    def start(self, scored: ScoredSource | None) -> None:
        """Log the report, with the figures of the scoring pass if there was one."""
        with self.barrier.contain("log the report", ADVICE):
            self.logs.report(self.report, self.outlook, scored)
        trainer = self.logs.trainer
        obstacle = self._rule.obstacle(trainer, self.monitor, self.outlook)
        if obstacle and trainer.is_global_zero:
            self.barrier.warn(
                "stop when hopeless", f"LEEPCallback will not stop this run, whatever `stop_when_hopeless`. {obstacle}"
            )
        if obstacle:
            self._rule = HopelessRule(None)

    def start_validation(self, trainer: Any) -> None:
        """Note which values are old."""
        if self.reader is not None:
            self.reader.start_validation(trainer.callback_metrics)

    def end_validation(self, trainer: Any) -> None:
        """Take the accuracy that validation logged."""
        if self.reader is not None:
            with self._measuring(self.reader):
                accuracy = self.reader.end_validation(trainer.callback_metrics)
                if accuracy is not None:
                    self.curve, epoch = self._scale.place(trainer, self.curve)
                    self._add(epoch, accuracy)
            self._stop_if_hopeless(trainer, trainer.current_epoch + bool(trainer.is_last_batch))

    def end_epoch(self) -> None:
        """Note that an epoch is over; the module's own hook comes after this one."""
        self._epoch_is_over = True

    def start_epoch(self, trainer: Any) -> None:
        """Take the accuracy that the epoch before logged outside validation."""
        if self._epoch_is_over:
            self._close_epoch(trainer, last=False)
            if self.reader is not None:
                self._stop_if_hopeless(trainer, trainer.current_epoch)
        self._epoch_is_over = False

    def end(self, trainer: Any) -> None:
        """The same for the last epoch; log how the run came out."""
        self._close_epoch(trainer, last=True)
        self.conclude()

    def conclude(self) -> None:
        """Log how the run came out, as far as it came."""
        with self.barrier.contain("log how the run came out", ADVICE):
            self.logs.end(self.report, self.curve, self.outlook, self.reference, self.stopped)

    def measured(self) -> tuple[AccuracyCurve, tuple[float, ...]]:
        """Curve and seconds for a checkpoint, with what the epoch that is ending has logged outside validation."""
        trainer = self.logs.trainer
        if self.reader is not None and self._epoch_is_over:
            with self._measuring(self.reader):
                accuracy = self.reader.logged_in_epoch(trainer.callback_metrics)
                # Lightning counts the epoch after the hooks in which checkpoints are saved, or before `on_train_end`.
                finished = trainer.fit_loop.epoch_progress.current.ready
                if accuracy is not None and not (len(self.curve) and self.curve.epochs[-1] >= finished):
                    return extended(self.curve, finished, accuracy), (*self.seconds, self._elapsed)
        return self.curve, self.seconds

    def ran_its_course(self, trainer: Any) -> bool:
        """Whether others can learn from this run: it was not stopped, and saw each batch of its data once at least."""
        if self.stopped or trainer.overfit_batches:
            return False
        epoch = min(1.0, self.outlook.max_epochs or 1.0)  # the user may want less than one
        if not math.isfinite(trainer.num_training_batches):
            return True
        batches: int = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        return batches >= math.floor(epoch * trainer.num_training_batches)

    def _close_epoch(self, trainer: Any, last: bool) -> None:
        reader = self.reader
        if reader is None:
            return
        with self._measuring(reader):
            self.curve = self._scale.end_epoch(trainer, self.curve)
            accuracy = reader.end_epoch(trainer.callback_metrics)
            if accuracy is not None:
                self._add(float(trainer.current_epoch), accuracy)
        due = last or reader.num_validations > 0 or not trainer.enable_validation
        if due and not reader.found:
            with self.barrier.contain("find the achieved accuracy", "Nothing else is affected."):
                others = [name for name in trainer.callback_metrics if not name.startswith(self.logs.prefix)]
                raise ValueError(missing_monitor_message(reader.monitor, others))

    def _add(self, epoch: float, accuracy: float) -> None:
        self.curve = extended(self.curve, epoch, accuracy)
        self.seconds = (*self.seconds[: len(self.curve) - 1], self._elapsed)
        with self.barrier.contain("update the forecast", "The achieved accuracy is logged all the same."):
            self.running = self.outlook.update(self.curve)
        if self.running is None or self.running.eta_epochs is None:  # what cannot be said any more is not left there
            self.logs.trainer.callback_metrics.pop(f"{self.logs.prefix}eta_epochs", None)
        self.logs.validation(self.curve, self.outlook, self.running, self.reference)

    def _stop_if_hopeless(self, trainer: Any, epochs: int) -> None:
        """End training on all processes if the first one finds that it need not go on, and it may end.

        It is asked by every process after every validation, whatever went wrong there: none may wait for the others.
        """
        if self._rule.target is None:
            return
        reason = self._rule.reason(self.running, self.curve, self.outlook.max_epochs)
        if not may_end(trainer, epochs, self.outlook):
            reason = None
        reason = trainer.strategy.broadcast(reason)
        if reason is not None:
            self.stopped = reason
            trainer.should_stop = True
            rank_zero_info(f"LEEPCallback stops training. {reason}")
            self.logs.text(f"**Stopped.** {reason}", "stopped")

    @property
    def _elapsed(self) -> float:
        return time.perf_counter() - self._start

    def _measuring(self, reader: MonitorReader) -> AbstractContextManager[None]:
        return self.barrier.contain(
            f"use the value of {reader.monitor!r}", "`monitor` must name an accuracy in 0..1 that the module logs."
        )
