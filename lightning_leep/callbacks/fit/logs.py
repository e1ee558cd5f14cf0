"""Everything a run shows: numbers for every logger and for other callbacks, panels for TensorBoard."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_leep.callbacks.fault_barrier import FaultBarrier
from lightning_leep.callbacks.fit.outlook import Outlook
from lightning_leep.callbacks.fit.state import FitState
from lightning_leep.callbacks.source.scorer import ScoredSource
from lightning_leep.forecast import RunningForecast
from lightning_leep.forecast.mean_curve import shown_transfers
from lightning_leep.records import AccuracyCurve, TransferRecord
from lightning_leep.records.curve import Reference
from lightning_leep.records.ranking import Ranking
from lightning_leep.records.transfer import RunningPoint
from lightning_leep.tensorboard.figures.achieved import predicted_vs_achieved_figure
from lightning_leep.tensorboard.figures.association import association_figure, strongest_sources_figure
from lightning_leep.tensorboard.figures.history import history_figure, levels_figure
from lightning_leep.tensorboard.figures.layers import layers_figure
from lightning_leep.tensorboard.plugin import RANKING_TAG, SO_FAR_TAG, TRANSFER_TAG
from lightning_leep.tensorboard.plugin.page_data import SO_FAR_POINTS, so_far_data
from lightning_leep.tensorboard.scalars import forecast_tags, validation_tags
from lightning_leep.tensorboard.text import advice_markdown, report_markdown
from lightning_leep.tensorboard.words import escaped
from lightning_leep.tensorboard.writer import log_figure, log_text, log_transfer, takes_figures

ADVICE = "Check that logger; the numbers are in `trainer.callback_metrics` as well."


class RunLogs:
    """Writes what is known of one fit to the loggers of its Trainer, and the numbers to its ``callback_metrics``.

    ``name`` is the first part of every tag, ``source_name`` what the source is called.
    """

    def __init__(self, trainer: Any, barrier: FaultBarrier, name: str, source_name: str) -> None:
        self.trainer = trainer
        self.barrier = barrier
        self.prefix = f"{name}/"
        self.source_name = source_name

    def start(self, state: FitState, outlook: Outlook, scored: ScoredSource | None) -> None:
        """Log the report and what is expected; figures of the joint only after a scoring pass in this run."""
        report, forecast = state.report, outlook.accuracy
        if report is None:
            return
        described = "" if forecast is None else f" {forecast.describe()}"
        leep = "no LEEP, since it has no head"
        if report.leep is not None:
            leep = f"LEEP {report.leep:.3f} (0 is perfect, {report.floor:.3f} says nothing about the labels)"
        rank_zero_info(f"LEEPCallback: {self.source_name} has {leep}.{described}")
        if (advice := outlook.advice) is not None and advice.choices:
            rank_zero_info(f"LEEPCallback: {advice.describe()}")
            self.text(advice_markdown(advice), "advice")
        self._numbers({} if forecast is None else forecast_tags(forecast, self.prefix))
        self.text(report_markdown(report, forecast, None, None, self.source_name, outlook.convergence))
        if any(layer.probe_accuracy is not None for layer in report.layers):
            self._figure("layers", lambda: layers_figure(report, outlook.advice))
        if scored is not None and (joint := scored.report.joint) is not None:
            names = scored.target_class_names, scored.source_class_names
            # A group of their own, which TensorBoard shows after the outcome: with many runs they fill pages.
            self._figure("association", lambda: association_figure(joint, *names), group="_source_classes")
            self._figure("strongest", lambda: strongest_sources_figure(joint, *names), group="_source_classes")
        if len(outlook.history):  # something to look at during training
            self._forecast_figures(state, outlook, None)

    def not_scored(self, why: str) -> None:
        """Say that there is no report, where it is seen with warnings switched off as well."""
        why = why or "LEEPCallback could not score the source model: another process failed. Training goes on."
        rank_zero_info(why)
        self.text(f"**Not scored.** {escaped(why)}")

    def achieved(self, accuracy: float) -> None:
        """Log the accuracy of a validation."""
        self._numbers({f"{self.prefix}achieved_accuracy": accuracy})

    def validation(
        self, curve: AccuracyCurve, outlook: Outlook, reference: Reference | None, running: RunningForecast | None
    ) -> None:
        """Log what follows from the latest validation, and what is expected now."""
        if running is None or running.eta_epochs is None:  # an old value must not stay there
            self.trainer.callback_metrics.pop(f"{self.prefix}eta_epochs", None)
        self._numbers(validation_tags(curve, outlook.accuracy, reference, running, self.prefix))

    def end(self, state: FitState, outlook: Outlook, reference: Reference | None, stopped: str) -> None:
        """Log how the run came out: the final figures and the text; why it was stopped, if it was."""
        if state.report is None:
            return
        self._forecast_figures(state, outlook, reference)
        shown = state.report, outlook.accuracy, state.curve, reference, self.source_name, outlook.convergence
        self.text(report_markdown(*shown, stopped))

    def transfer(self, record: TransferRecord, ended: bool) -> None:
        """Log what the tab "Transfer" of TensorBoard shows: at the start, and at the end of the fit."""
        self._transfer(TRANSFER_TAG, {"record": record.to_dict(), "ended": ended})

    def transfer_so_far(self, curve: AccuracyCurve, running: Sequence[RunningPoint]) -> None:
        """Log what the tab shows of a run that is under way, in at most 3 kB; of many validations only some do."""
        if len(curve) % -(-len(curve) // SO_FAR_POINTS) == 0:
            self._transfer(SO_FAR_TAG, so_far_data(curve, running))

    def ranking(self, ranking: Ranking, markdown: str) -> None:
        """Log the ranking that the source was chosen from, as text and for the tab."""
        self.text(markdown, "ranking")
        self._transfer(RANKING_TAG, ranking.to_dict())

    def _transfer(self, tag: str, content: Mapping[str, Any]) -> None:
        tag = f"{self.prefix}{tag}"
        self._each_logger("add the transfer to", lambda logger: log_transfer(logger, tag, content, self._step))

    def text(self, markdown: str, panel: str = "report") -> None:
        """Log a panel of text."""
        self._each_logger("add text to", lambda logger: log_text(logger, f"{self.prefix}{panel}", markdown, self._step))

    def _forecast_figures(self, state: FitState, outlook: Outlook, reference: Reference | None) -> None:
        report, curve, forecast = state.report, state.curve, outlook.accuracy
        history = shown_transfers(outlook.history)
        if forecast is not None:
            interval, basis = (forecast.low, forecast.high), f"from {forecast.basis}"
            shown = curve, forecast.value, basis, interval, reference
            self._figure(
                "predicted_vs_achieved", lambda: predicted_vs_achieved_figure(*shown, expected=outlook.expected)
            )
        if history and report is not None:
            self._figure("history", lambda: history_figure(report, history, forecast, curve))
        if len(history) > 1:  # a level is the mean of at least two
            self._figure("history_by_level", lambda: levels_figure(history, curve))

    def _numbers(self, values: Mapping[str, float]) -> None:
        # For other callbacks, at once: `self.log` would show them at the end of the epoch, and not in every hook.
        tensors = {tag: torch.tensor(value, dtype=torch.float32) for tag, value in values.items()}
        self.trainer.callback_metrics.update(tensors)

        def log(logger: Any) -> None:
            logger.log_metrics(dict(values), step=self._step)
            logger.save()

        if values:
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
