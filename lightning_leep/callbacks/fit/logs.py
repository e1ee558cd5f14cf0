"""Everything a run shows: numbers for every logger and for other callbacks, panels for TensorBoard."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_leep.callbacks.fault_barrier import FaultBarrier
from lightning_leep.callbacks.fit.outlook import Outlook
from lightning_leep.callbacks.source.scorer import ScoredSource
from lightning_leep.forecast import RunningForecast
from lightning_leep.records import AccuracyCurve
from lightning_leep.records.curve import Reference
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.tensorboard.figures.achieved import predicted_vs_achieved_figure
from lightning_leep.tensorboard.figures.association import association_figure, strongest_sources_figure
from lightning_leep.tensorboard.figures.history import history_figure, levels_figure, shown_transfers
from lightning_leep.tensorboard.hparams import complete_hparams, widen_hparams
from lightning_leep.tensorboard.scalars import convergence_tags, hparam_tags, report_tags, running_tags, validation_tags
from lightning_leep.tensorboard.text import report_markdown
from lightning_leep.tensorboard.writer import log_figure, log_text, takes_figures

ADVICE = "See what that logger needs; every number is in `trainer.callback_metrics` as well."


class RunLogs:
    """Writes what is known of one fit to the loggers of its Trainer, and the numbers to its ``callback_metrics``.

    Args:
        trainer: The trainer, in ``fit``.
        barrier: Contains the faults of each logger.
        name: First part of every tag.
        transfers: Name of the source model and strategy of all callbacks in this Trainer, by the first part of their
            tags.
    """

    def __init__(
        self, trainer: Any, barrier: FaultBarrier, name: str, transfers: Mapping[str, tuple[str, str]]
    ) -> None:
        self.trainer = trainer
        self.barrier = barrier
        self.prefix = f"{name}/"
        self.source_name = transfers[name][0]
        self.hparam_tags = [tag for other in transfers for tag in hparam_tags(f"{other}/")]
        self.own_hparams = {
            f"{other}/{what}": value
            for other, values in transfers.items()
            for what, value in zip(("source", "strategy"), values, strict=True)
        }
        self._widened: list[Callable[[], None]] = []

    def widen_hparams(self) -> None:
        """Have Lightning's row of HPARAMS show what is predicted and achieved, until :meth:`release_hparams`."""

        def widen(logger: Any) -> None:
            guard = partial(self.barrier.contain, f"add HPARAMS to {type(logger).__name__}", ADVICE)
            self._widened.append(widen_hparams(logger, self.own_hparams, self.hparam_tags, guard))

        self._each_logger("add HPARAMS to", widen)

    def release_hparams(self) -> None:
        """Leave the loggers as they were."""
        while self._widened:
            self._widened.pop()()

    def complete_hparams(self) -> None:
        """Write the row of HPARAMS of a run that has none, once all hooks of the fit have had their chance."""
        self._each_logger("add HPARAMS to", lambda logger: complete_hparams(logger, self.own_hparams, self.hparam_tags))

    def report(self, report: TransferabilityReport, outlook: Outlook, scored: ScoredSource | None) -> None:
        """The report and what is expected, before the first step of training.

        Args:
            report: The report.
            outlook: What is expected.
            scored: The scoring pass, for the figures of its joint; None if it was in an earlier, interrupted run.
        """
        forecast = "" if outlook.accuracy is None else f" {outlook.accuracy.describe()}"
        rank_zero_info(
            f"LEEPCallback: {self.source_name} has LEEP {report.leep:.3f} (0 is perfect, {report.floor:.3f} says "
            f"nothing about the labels).{forecast}"
        )
        curve = AccuracyCurve()
        self._numbers({**report_tags(report, self.prefix), **self._validation_tags(curve, outlook, None)})
        self.text(report_markdown(report, outlook.accuracy, None, None, self.source_name, outlook.convergence))
        if scored is not None and (joint := scored.report.joint) is not None:
            names = scored.target_class_names, scored.source_class_names
            # A group of their own, for TensorBoard to show after those of the outcome: of many runs they fill pages.
            self._figure("association", lambda: association_figure(joint, *names), group="_source_classes")
            self._figure("strongest", lambda: strongest_sources_figure(joint, *names), group="_source_classes")
        if len(outlook.history):  # something to look at while it trains
            self._forecast_figures(report, curve, outlook, None)

    def validation(
        self, curve: AccuracyCurve, outlook: Outlook, running: RunningForecast | None, reference: Reference | None
    ) -> None:
        """Achieved beside predicted accuracy, and what is expected now."""
        running_now = {} if running is None else running_tags(running, self.prefix)
        self._numbers({**self._validation_tags(curve, outlook, reference), **running_now})

    def end(
        self,
        report: TransferabilityReport,
        curve: AccuracyCurve,
        outlook: Outlook,
        reference: Reference | None,
        stopped: str = "",
    ) -> None:
        """How the run came out: measures of its convergence, the final figures and text."""
        predicted = None if outlook.accuracy is None else outlook.accuracy.value
        self._numbers(convergence_tags(curve, predicted, reference, self.prefix))
        self._forecast_figures(report, curve, outlook, reference)
        self.text(
            report_markdown(report, outlook.accuracy, curve, reference, self.source_name, outlook.convergence, stopped)
        )

    def text(self, markdown: str, tag: str = "report") -> None:
        """A text panel."""
        self._each_logger("add text to", lambda logger: log_text(logger, f"{self.prefix}{tag}", markdown, self._step))

    def _forecast_figures(
        self, report: TransferabilityReport, curve: AccuracyCurve, outlook: Outlook, reference: Reference | None
    ) -> None:
        forecast = outlook.accuracy
        history = shown_transfers(outlook.history)
        if forecast is not None:
            self._figure(
                "predicted_vs_achieved",
                lambda: predicted_vs_achieved_figure(
                    curve,
                    forecast.value,
                    f"from {forecast.basis}",
                    (forecast.low, forecast.high),
                    reference,
                    expected=outlook.expected,
                ),
            )
        if history:
            self._figure("history", lambda: history_figure(report, history, forecast, curve))
        if len(history) > 1:  # a level is the mean of at least two
            self._figure("history_by_level", lambda: levels_figure(history, curve))

    def _validation_tags(self, curve: AccuracyCurve, outlook: Outlook, reference: Reference | None) -> dict[str, float]:
        forecast = outlook.accuracy
        if forecast is None:
            return validation_tags(curve, None, reference, self.prefix)
        return validation_tags(curve, forecast.value, reference, self.prefix, (forecast.low, forecast.high))

    def _numbers(self, values: Mapping[str, float]) -> None:
        if not values:
            return
        # For other callbacks, at once: `self.log` would show them at the end of the epoch, and not in every hook. The
        # groups that keep TensorBoard tidy would only be in the way here.
        self.trainer.callback_metrics.update(
            {
                f"{self.prefix}{tag.rpartition('/')[2]}": torch.tensor(value, dtype=torch.float32)
                for tag, value in values.items()
            }
        )

        def log(logger: Any) -> None:
            logger.log_metrics(dict(values), step=self._step)
            logger.save()

        self._each_logger("log to", log)

    def _figure(self, tag: str, draw: Callable[[], Any], group: str = "") -> None:
        loggers = [logger for logger in self._loggers if takes_figures(logger)]
        if not loggers:
            return
        with self.barrier.contain("draw figures", "Everything else is logged."):
            figure, name = draw(), f"{self.prefix.removesuffix('/')}{group}/{tag}"
            self._each_logger("add a figure to", lambda logger: log_figure(logger, name, figure, self._step))

    def _each_logger(self, task: str, action: Callable[[Any], None]) -> None:
        for logger in self._loggers:
            with self.barrier.contain(f"{task} {type(logger).__name__}", ADVICE):
                action(logger)

    @property
    def _loggers(self) -> list[Any]:
        return list(self.trainer.loggers) if self.trainer.is_global_zero else []

    @property
    def _step(self) -> int:
        # The step under which Lightning logs the metrics of the same moment, so that lines can be laid over each other.
        return int(getattr(self.trainer.fit_loop.epoch_loop, "_batches_that_stepped", self.trainer.global_step))
