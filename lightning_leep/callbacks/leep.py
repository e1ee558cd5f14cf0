"""The callback: when to score, what to watch, what to log."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from lightning_leep.callbacks.fit.logs import RunLogs
from lightning_leep.callbacks.fit.monitor import as_reference
from lightning_leep.callbacks.fit.outlook import HISTORY_ADVICE, HISTORY_TASK, look_ahead
from lightning_leep.callbacks.fit.record import RecordKeeper, validation_rows
from lightning_leep.callbacks.fit.state import ResumableCallback
from lightning_leep.callbacks.fit.watch import TransferWatch
from lightning_leep.callbacks.hopeless import check_target
from lightning_leep.callbacks.names import automatic_names
from lightning_leep.callbacks.source.scorer import SourceScorer
from lightning_leep.layers.trained_part import STRATEGY_ADVICE, STRATEGY_TASK
from lightning_leep.records import AccuracyCurve
from lightning_leep.records.history import Folder
from lightning_leep.scoring.options import ScoringOptions

if TYPE_CHECKING:
    import pytorch_lightning as pl

SCORING_ADVICE = "See the arguments of LEEPCallback; `strict=True` stops with the whole traceback."


class LEEPCallback(ResumableCallback):
    """Scores a pre-trained classifier on the training data before fine-tuning starts, and shows how it turned out.

    The source is scored once, in ``on_train_start``, by all processes together. Training is the same, bit by bit, as
    without the callback. What is known goes to every logger of the Trainer; to figures, HPARAMS and a text panel in
    TensorBoard; and into ``trainer.callback_metrics``, there with the one prefix ``leep/``:

    - before training: ``leep_report/``, each number of the :class:`~lightning_leep.TransferabilityReport` (``leep``,
      ``leave_one_out_leep``, ``linear_probe_accuracy``, ...), and ``leep/predicted_accuracy`` with ``_low`` and
      ``_high``, the interval of :func:`~lightning_leep.forecast.forecast_accuracy`;
    - after each validation: ``leep/achieved_accuracy``, that of the moment, and ``leep/best_accuracy``, which is what
      is predicted, with their differences to the prediction and
      to a reference; ``leep/eta_epochs``, the epochs still to go to 99% of the final accuracy, once that can be said;
      ``leep_running/``, the forecast given the curve so far;
    - at the end: ``leep_convergence/``, the measures of :func:`~lightning_leep.records.convergence_scalars`.

    When training ends in the ordinary way, by early stopping or by ``stop_when_hopeless``, a
    :class:`~lightning_leep.records.TransferRecord` of a run with a validation joins the history, from which later
    forecasts learn. A run that breaks off with an error or an interruption leaves none: it has not shown what the
    transfer can reach. Nor does one with ``fast_dev_run``. A run that goes on, from a checkpoint or by another ``fit``
    of its Trainer, keeps its report, its forecast and its curve, and adds a record when it has trained on; a new fit
    scores again. HPARAMS have the columns where the module calls ``save_hyperparameters()``.

    Source: Nguyen et al., ICML 2020 (arXiv:2002.12462).

    Args:
        source: The pre-trained classifier with its original head: a module or a function from inputs to logits (or to
            something with ``.logits``). None uses the LightningModule's method ``source_logits(inputs)``. It may share
            its weights with the module that is trained. It is neither trained nor saved in checkpoints.
        monitor: Name of the validation accuracy in 0..1 that the LightningModule logs; None compares with nothing.
        scoring: Options of the scoring pass; None for the defaults. They decide how a batch is read, which layer is the
            head and where rows are kept.
        num_target_classes: C; by default found in the datamodule, the module or the training data set.
        dataloader: Labelled data to score instead of the training data, without its augmentations for example. Several
            processes divide a DataLoader over data with an index, or a list of batches; of any other iterable each
            scores all that it yields there.
        max_samples: Largest number of rows to score, a random subset.
        reference: What to compare with, such as the same network trained from scratch: an
            :class:`~lightning_leep.records.AccuracyCurve`, its accuracies after 1, 2, ... epochs, or one accuracy.
        history: Folder of records of earlier transfers, a path or fsspec URL; by default ``transfer_history`` under
            ``trainer.default_root_dir``. False neither reads nor writes any: what to give for a source that is scored
            for comparison in the training of another one, which says nothing of its own transfer.
        strategy: What is trained: "head", "all", "part" (some of the source's layers, or adapters), "gradual" (more and
            more of them), "scratch" (random weights, which cannot be seen) or a word of your own; only transfers of one
            strategy are compared. None finds it by ``requires_grad`` and by what is equal to the source's weights.
        data_name: Name of the target data in the record; by default the class of the datamodule or data set.
        model_name: Name of the source in record and panels; by default the class of the source or the LightningModule.
        stop_when_hopeless: Accuracy without which the run is not worth its time: when four validations in a row, over a
            tenth of the training, leave the interval of the running forecast below it, training ends by
            ``trainer.should_stop``, but not before ``min_epochs`` and ``min_steps``. The forecast continues the curve:
            it foresees a slow start, or a rise that follows a learning rate brought down to the end, but no jump after
            a step of the learning rate, a long warm-up or an unfreezing. Do not set it with those; while a
            ``BaseFinetuning`` callback is in the Trainer it is heeded only if the history knows how such transfers
            converge. None never stops.
        target_class_names: Names for the figures; by default found in the datamodule or the data set.
        source_class_names: Names for the figures; by default found in the source.
        name: Prefix of everything that is logged, and the callback's name in checkpoints. Of several callbacks in one
            Trainer the first is ``leep``, the next ones ``leep_2``, ``leep_3``, ... unless they are named.
        strict: Whether a fault in scoring or logging is raised. Otherwise it is warned of, and training goes on.

    Attributes:
        report: The report once the source has been scored, else None. (Processes that a strategy such as ``ddp_spawn``
            starts by itself keep it to themselves; ``trainer.callback_metrics`` comes back from them.)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an impossible value.

    Example:
        >>> import pytorch_lightning as pl
        >>> callback = LEEPCallback(source=nn.Linear(4, 3), monitor="val_acc")
        >>> trainer = pl.Trainer(callbacks=callback, logger=False, enable_checkpointing=False, accelerator="cpu")
    """

    def __init__(
        self,
        source: nn.Module | Callable[..., Any] | None = None,
        monitor: str | None = "val_acc",
        *,
        scoring: ScoringOptions | None = None,
        num_target_classes: int | None = None,
        dataloader: Iterable[Any] | None = None,
        max_samples: int | None = None,
        reference: AccuracyCurve | Sequence[float] | float | None = None,
        history: Folder | Literal[False] | None = None,
        strategy: str | None = None,
        data_name: str | None = None,
        model_name: str | None = None,
        stop_when_hopeless: float | None = None,
        target_class_names: Sequence[str] | None = None,
        source_class_names: Sequence[str] | None = None,
        name: str | None = None,
        strict: bool = False,
    ) -> None:
        for argument, text in (("monitor", monitor), ("name", name)):
            if text is not None and (not isinstance(text, str) or not text):
                raise TypeError(f"`{argument}` must be a name or None, got {text!r}.")
        super().__init__(name, strategy, strict)
        self.monitor = monitor
        self.reference = as_reference(reference)
        self._target = check_target(stop_when_hopeless)
        self._scorer = SourceScorer(
            source,
            scoring,
            num_target_classes=num_target_classes,
            dataloader=dataloader,
            max_samples=max_samples,
            target_class_names=target_class_names,
            source_class_names=source_class_names,
        )
        self._keeper = RecordKeeper(history=history, strategy=strategy, data_name=data_name, model_name=model_name)
        self._logs: RunLogs | None = None

    def setup(self, trainer: Any, pl_module: "pl.LightningModule", stage: str) -> None:
        """Take a name among the callbacks of this Trainer, and forget the previous fit unless this one goes on."""
        siblings = leep_callbacks(trainer)
        names = automatic_names([callback.name for callback in siblings])
        self._automatic_name = next(name for name, callback in zip(names, siblings, strict=True) if callback is self)
        if stage == "fit":
            self._set_up(trainer, pl_module)
            self._logs = None

    def on_fit_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """See what is trained, before the first step changes it, and prepare the columns of HPARAMS."""
        siblings = leep_callbacks(trainer)
        transfers = {callback.log_name: callback.transfer(trainer, pl_module) for callback in siblings}
        self._logs = RunLogs(trainer, self._barrier, self.log_name, transfers)
        if self is siblings[0]:  # TensorBoard heeds one row alone
            self._logs.widen_hparams()

    def transfer(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> tuple[str, str]:
        """Names of the source model and of what is trained."""
        with self._barrier.contain(STRATEGY_TASK, STRATEGY_ADVICE):
            self._trained.start(trainer, pl_module, self._scorer.source)
        return self._keeper.model(pl_module, self._scorer.source), self._trained.word

    def on_train_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Score the source, unless a checkpoint brought its report, and say what is expected."""
        scored = None
        if self._logs is not None:
            self._logs.release_hparams()
        if self.report is None:
            with self._barrier.contain("score the source model", SCORING_ADVICE):
                scored = self._scorer.run(trainer, pl_module)
                self.report, self.forecast = scored.report, None
        if self.report is not None and self._logs is not None:
            outlook = look_ahead(
                trainer,
                self._barrier,
                self.report,
                folder=self._keeper.folder(trainer),
                strategy=self._trained.word,
                test_size=validation_rows(trainer, self.monitor),
                accuracy=self.forecast,
                first_epoch=self._first_epoch,
            )
            self.forecast = outlook.accuracy
            past = self._past_curve, self._past_seconds
            self._watch = TransferWatch(
                self._logs, self._barrier, self.report, outlook, self.monitor, self.reference, *past, self._target
            )
            self._watch.start(scored)

    def on_validation_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Note which values are old."""
        if self._watch is not None:
            self._watch.start_validation(trainer)

    def on_validation_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Compare the accuracy that validation logged with the prediction."""
        if self._watch is not None:
            self._watch.end_validation(trainer)

    def on_train_epoch_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Look at what the epoch before logged outside validation, now that the module's own hooks are done."""
        if self._watch is not None:
            self._watch.start_epoch(trainer)

    def on_train_epoch_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Note that an epoch is over, and what was trained in it."""
        if self._watch is not None:
            self._watch.end_epoch()
            with self._barrier.contain(STRATEGY_TASK, STRATEGY_ADVICE):
                self._trained.look(pl_module, self._scorer.source)

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Log how the run came out, and add its record to the history."""
        with self._ending() as watch:
            try:
                if watch is not None:
                    watch.end(trainer)
            finally:  # a fault in a logger must not cost the record
                if watch is not None:
                    with self._barrier.contain(HISTORY_TASK, HISTORY_ADVICE):
                        model = self._keeper.model(pl_module, self._scorer.source)
                        self._keeper.save(trainer, watch, model, self._trained.word, self._first_epoch)

    def teardown(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Leave the loggers as they were, also after a fit with nothing to train, and no run without HPARAMS."""
        if self._logs is not None:
            self._logs.release_hparams()
            if self is leep_callbacks(trainer)[0] and self.report is not None:
                self._logs.complete_hparams()
        self._logs = None

    def on_exception(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", exception: BaseException) -> None:
        """Log how far an interrupted run came."""
        with self._ending() as watch, self._barrier.contain("log the interrupted run", SCORING_ADVICE, strict=False):
            if watch is not None:
                watch.conclude()

    @contextmanager
    def _ending(self) -> Iterator[TransferWatch | None]:
        """The watch, for the last time: what is validated or tested after this is no part of the fit."""
        if self._logs is not None:
            self._logs.release_hparams()
        watch, self._watch = self._watch, None
        try:
            yield watch
        finally:
            if watch is not None:
                self._past_curve, self._past_seconds = watch.curve, watch.seconds


def leep_callbacks(trainer: Any) -> list[LEEPCallback]:
    """The callbacks of this class in a Trainer, in its order."""
    return [callback for callback in trainer.callbacks if isinstance(callback, LEEPCallback)]
