"""Everything a run shows: numbers for every logger and for other callbacks, panels for TensorBoard."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_info

from lightning_leep.callbacks.faults import FaultBarrier
from lightning_leep.callbacks.source import ScoredSource
from lightning_leep.forecast.curve import AccuracyCurve, Reference
from lightning_leep.report import TransferabilityReport
from lightning_leep.tensorboard import (
    association_figure,
    convergence_tags,
    declare_hparams,
    hparam_tags,
    lightning_logs_hparams,
    log_figure,
    log_hparams,
    log_text,
    predicted_vs_achieved_figure,
    report_markdown,
    report_tags,
    saved_hparams,
    strongest_sources_figure,
    takes_figures,
    validation_tags,
)

ADVICE = "See what that logger needs; every number is in `trainer.callback_metrics` as well."


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a report promises: an accuracy, and in words what kind of number it is."""

    accuracy: float
    label: str


class RunLogs:
    """Writes what is known of one fit to the loggers of its Trainer, and the numbers to its ``callback_metrics``.

    Args:
        trainer: The trainer, in ``fit``.
        barrier: Contains the faults of each logger.
        name: First part of every tag.
        sources: Names of the source models of all callbacks in this Trainer, by the first part of their tags.
    """

    def __init__(self, trainer: Any, barrier: FaultBarrier, name: str, sources: Mapping[str, str]) -> None:
        self.trainer = trainer
        self.barrier = barrier
        self.prefix = f"{name}/"
        self.source_name = sources[name]
        self.hparam_tags = [tag for other in sources for tag in hparam_tags(f"{other}/")]
        self.source_hparams = {f"{other}/source": source for other, source in sources.items()}

    def declare(self) -> None:
        """Name the columns of HPARAMS, before Lightning logs hyper-parameters."""
        if lightning_logs_hparams(self.trainer):
            self._each_logger("declare HPARAMS to", lambda logger: declare_hparams(logger, *self._hparams()))

    def report(self, report: TransferabilityReport, prediction: Prediction, scored: ScoredSource | None) -> None:
        """The report, before the first step of training.

        Args:
            report: The report.
            prediction: What it promises.
            scored: The scoring pass, for the figures of its joint; None if it was in an earlier, interrupted run.
        """
        rank_zero_info(
            f"LEEPCallback: {self.source_name} has LEEP {report.leep:.3f} (0 is perfect, {report.floor:.3f} says "
            f"nothing about the labels); predicted accuracy {prediction.accuracy:.1%} ({prediction.label})."
        )
        predicted = validation_tags(AccuracyCurve(), prediction.accuracy, prefix=self.prefix)
        self._numbers({**report_tags(report, self.prefix), **predicted})
        self._text(report_markdown(report, prediction.accuracy, prediction.label, source_name=self.source_name))
        if scored is not None and (joint := scored.report.joint) is not None:
            names = scored.target_class_names, scored.source_class_names
            self._figure("association", lambda: association_figure(joint, *names))
            self._figure("strongest_source_classes", lambda: strongest_sources_figure(joint, *names))

    def validation(self, curve: AccuracyCurve, prediction: Prediction, reference: Reference | None) -> None:
        """Achieved beside predicted accuracy."""
        self._numbers(validation_tags(curve, prediction.accuracy, reference, self.prefix))

    def end(
        self,
        report: TransferabilityReport,
        curve: AccuracyCurve,
        prediction: Prediction,
        reference: Reference | None,
    ) -> None:
        """How the run came out: measures of its convergence, the final figure, text and row of HPARAMS."""
        self._numbers(convergence_tags(curve, prediction.accuracy, reference, self.prefix))
        self._figure(
            "predicted_vs_achieved",
            lambda: predicted_vs_achieved_figure(curve, prediction.accuracy, prediction.label, reference=reference),
        )
        self._text(report_markdown(report, prediction.accuracy, prediction.label, curve, reference, self.source_name))
        self._each_logger("add HPARAMS to", lambda logger: log_hparams(logger, *self._hparams()))

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

    def _figure(self, tag: str, draw: Callable[[], Any]) -> None:
        loggers = [logger for logger in self._loggers if takes_figures(logger)]
        if not loggers:
            return
        with self.barrier.contain("draw figures", "Everything else is logged."):
            figure = draw()
            self._each_logger(
                "add a figure to", lambda logger: log_figure(logger, f"{self.prefix}{tag}", figure, self._step)
            )

    def _text(self, markdown: str) -> None:
        self._each_logger("add text to", lambda logger: log_text(logger, f"{self.prefix}report", markdown, self._step))

    def _hparams(self) -> tuple[dict[str, Any], list[str]]:
        return {**saved_hparams(self.trainer), **self.source_hparams}, self.hparam_tags

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
