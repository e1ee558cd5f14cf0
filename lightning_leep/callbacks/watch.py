"""One fit under observation: what it achieves beside what was predicted."""

import time
from contextlib import AbstractContextManager
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from lightning_leep.callbacks.faults import FaultBarrier
from lightning_leep.callbacks.forecasting import Outlook, reason_to_stop
from lightning_leep.callbacks.logs import ADVICE, RunLogs
from lightning_leep.callbacks.measurement import MonitorReader, epochs_trained, extended, missing_monitor_message
from lightning_leep.callbacks.source import ScoredSource
from lightning_leep.forecast import AccuracyCurve, RunningForecast
from lightning_leep.forecast.curve import Reference
from lightning_leep.report import TransferabilityReport


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
        self.target = target
        self.running: RunningForecast | None = None
        self.stopped = ""
        self._start = time.perf_counter() - (seconds[-1] if seconds else 0.0)
        self.reader = None if monitor is None else MonitorReader(monitor)
        self._epoch_is_over = False

    def start(self, scored: ScoredSource | None) -> None:
        """Log the report, with the figures of the scoring pass if there was one."""
        with self.barrier.contain("log the report", ADVICE):
            self.logs.report(self.report, self.outlook, scored)

    def start_validation(self, trainer: Any) -> None:
        """Note which values are old."""
        if self.reader is not None:
            self.reader.start_validation(trainer.callback_metrics)

    def end_validation(self, trainer: Any) -> None:
        """Take the accuracy that validation logged."""
        if self.reader is not None:
            with self._measuring(self.reader):
                accuracy = self.reader.end_validation(trainer.callback_metrics)
                self._add(epochs_trained(trainer, self.curve), accuracy)
            self._stop_if_hopeless(trainer)

    def end_epoch(self) -> None:
        """Note that an epoch is over; the module's own hook comes after this one."""
        self._epoch_is_over = True

    def start_epoch(self, trainer: Any) -> None:
        """Take the accuracy that the epoch before logged outside validation."""
        if self._epoch_is_over:
            self._close_epoch(trainer, last=False)
            if self.reader is not None:
                self._stop_if_hopeless(trainer)
        self._epoch_is_over = False

    def end(self, trainer: Any) -> None:
        """The same for the last epoch; log how the run came out."""
        self._close_epoch(trainer, last=True)
        self.conclude()

    def conclude(self) -> None:
        """Log how the run came out, as far as it came."""
        with self.barrier.contain("log how the run came out", ADVICE):
            self.logs.end(self.report, self.curve, self.outlook, self.reference, self.stopped)

    def _close_epoch(self, trainer: Any, last: bool) -> None:
        reader = self.reader
        if reader is None:
            return
        with self._measuring(reader):
            self._add(float(trainer.current_epoch), reader.end_epoch(trainer.callback_metrics))
        due = last or reader.num_validations > 0 or not trainer.enable_validation
        if due and not reader.found:
            with self.barrier.contain("find the achieved accuracy", "Nothing else is affected."):
                others = [name for name in trainer.callback_metrics if not name.startswith(self.logs.prefix)]
                raise ValueError(missing_monitor_message(reader.monitor, others))

    def _add(self, epoch: float, accuracy: float | None) -> None:
        if accuracy is None:
            return
        self.curve = extended(self.curve, epoch, accuracy)
        self.seconds = (*self.seconds[: len(self.curve) - 1], time.perf_counter() - self._start)
        with self.barrier.contain("update the forecast", "The achieved accuracy is logged all the same."):
            self.running = self.outlook.update(self.curve)
        self.logs.validation(self.curve, self.outlook, self.running, self.reference)

    def _stop_if_hopeless(self, trainer: Any) -> None:
        """End training on all processes if the first one finds that it need not go on.

        It is asked by every process after every validation, whatever went wrong there: none may wait for the others.
        """
        if self.target is None or self.stopped:
            return
        reason = trainer.strategy.broadcast(reason_to_stop(self.running, self.curve, self.outlook, self.target))
        if reason is not None:
            self.stopped = reason
            trainer.should_stop = True
            rank_zero_info(f"LEEPCallback stops training. {reason}")
            self.logs.text(f"**Stopped.** {reason}", "stopped")

    def _measuring(self, reader: MonitorReader) -> AbstractContextManager[None]:
        return self.barrier.contain(
            f"use the value of {reader.monitor!r}", "`monitor` must name an accuracy in 0..1 that the module logs."
        )
