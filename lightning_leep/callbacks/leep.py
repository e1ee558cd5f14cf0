"""The callback: which hook does what."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any, ClassVar, Literal

from torch import nn

from lightning_leep.callbacks.fault_barrier import HOOK_ADVICE, FaultBarrier, contained_hooks
from lightning_leep.callbacks.fit.logs import RunLogs
from lightning_leep.callbacks.fit.monitor import as_reference
from lightning_leep.callbacks.fit.outlook import look_ahead
from lightning_leep.callbacks.fit.record import RecordKeeper, saw_all_data
from lightning_leep.callbacks.fit.state import FitState
from lightning_leep.callbacks.fit.trainer_facts import TrainerFacts
from lightning_leep.callbacks.fit.watch import TransferWatch
from lightning_leep.callbacks.hopeless import why_cut_short
from lightning_leep.callbacks.source.scorer import SourceScorer
from lightning_leep.forecast import AccuracyForecast
from lightning_leep.records import AccuracyCurve, TransferabilityReport
from lightning_leep.records.folder import Folder
from lightning_leep.records.ranking import Ranking
from lightning_leep.scoring.options import ScoringOptions
from lightning_leep.utils.checks import check_name
from lightning_leep.utils.trainer_callback import TrainerCallback

SCORING = "score the source model"
SCORING_ADVICE = f"See the arguments of LEEPCallback; {HOOK_ADVICE}"


@contained_hooks
class LEEPCallback(TrainerCallback):
    """Scores a pre-trained classifier on the training data before fine-tuning, and shows how fine-tuning turned out.

    The source is scored once, in ``on_train_start``, by all processes together. Training is the same, bit by bit, as
    without the callback. Every logger of the Trainer and ``trainer.callback_metrics`` get the same tags:

    - before training the forecast of the best accuracy, ``leep/predicted_accuracy``, ``leep/predicted_low`` and
      ``leep/predicted_high``;
    - after each validation ``leep/achieved_accuracy``, ``leep/best_accuracy``, ``leep/prediction_error`` and more:
      ``docs/tags.md`` lists them.

    All scores are in the text panel, in the record, and in the tab "Transfer" of TensorBoard. TensorBoard, W&B and
    MLflow also get figures and text.

    A run adds a :class:`~lightning_leep.records.TransferRecord` to the history, from which later forecasts learn, if it
    had a validation and ended by itself, by early stopping or by :class:`~lightning_leep.StopWhenHopeless`. A run that
    ends with an error or an interruption adds none, since it has not shown what the transfer can reach; nor does
    ``fast_dev_run``. A run that continues, from a checkpoint or by another ``fit`` of its Trainer, keeps its report,
    its forecast and its curve. A new fit scores again. If the length of the training loader is unknown and there are
    validations within an epoch, each validation counts as an epoch.

    Source: Nguyen et al., ICML 2020 (arXiv:2002.12462).

    Args:
        source: The pre-trained classifier with its original head: a module or a function from inputs to logits (or to
            something with ``.logits``). None uses the LightningModule's method ``source_logits(inputs)``. It may share
            its weights with the module that is trained. It is neither trained nor saved in checkpoints.
        monitor: Name of the validation accuracy in 0..1 that the LightningModule logs; None compares nothing.
        scoring: Options of the scoring pass; None for the defaults. They decide how a batch is read, which layer is the
            head and where rows are kept.
        num_target_classes: C; by default stated by the datamodule, module or data set, or else found from the labels.
        dataloader: Labelled data to score instead of the training data, for example without its augmentations. The
            processes share the rows of a DataLoader over data with an index, and the batches of a list. From any other
            iterable each process scores all that it yields on that process.
        max_samples: Largest number of rows to score, a random subset.
        reference: What to compare with, such as the same network trained from scratch: its
            :class:`~lightning_leep.records.AccuracyCurve`, its accuracies after 1, 2, ... epochs, or one accuracy.
        history: Folder of records of earlier transfers, a path or fsspec URL; by default ``transfer_history`` under
            ``trainer.default_root_dir``. False disables the history: pass it for a source that is
            scored only for comparison, while another one is trained.
        trainable: What is trained: "head", "all", "part" (some of the source's layers, or adapters), "gradual" (more of
            them over time), "scratch" (random weights; not found by itself) or a word of your own. Only transfers with
            the same word are compared. None finds it by ``requires_grad`` and by comparing with the source's weights.
        target_name: Name of the target data in the record; by default the class of the datamodule or data set.
        source_name: Name of the source in record and panels; by default the class of the source or the LightningModule.
        target_class_names: Names for the figures; by default found in the datamodule or the data set.
        source_class_names: Names for the figures; by default found in the source.
        name: First part of every tag, and the callback's name in checkpoints. By default ``leep`` for the first
            callback in a Trainer, ``leep_2``, ``leep_3``, ... for the next ones.
        ranking: The ranking that the source was chosen from, or its JSON file. A panel shows the place of the source
            (by ``source_name``), and at the end whether the order held.
        strict: Whether a fault in scoring or logging raises. By default it is a warning, and training goes on.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an impossible value.

    Example:
        >>> import pytorch_lightning as pl
        >>> callback = LEEPCallback(source=nn.Linear(4, 3), monitor="val_acc")
        >>> trainer = pl.Trainer(callbacks=callback, logger=False, enable_checkpointing=False, accelerator="cpu")
    """

    _instances: ClassVar[count] = count()

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
        trainable: str | None = None,
        target_name: str | None = None,
        source_name: str | None = None,
        target_class_names: Sequence[str] | None = None,
        source_class_names: Sequence[str] | None = None,
        name: str | None = None,
        ranking: Ranking | Folder | None = None,
        strict: bool = False,
    ) -> None:
        check_name("monitor", monitor)
        check_name("name", name)
        super().__init__()
        self.name = name
        self.strict = strict
        self.monitor = monitor
        self.reference = as_reference(reference)
        names = target_class_names, source_class_names
        self._scorer = SourceScorer(source, scoring, num_target_classes, dataloader, max_samples, *names)
        self._keeper = RecordKeeper(history, trainable, target_name, source_name, ranking)
        self._barrier = FaultBarrier(strict)
        self._state = FitState()
        self._fitted: tuple[int, int] | None = None
        self._logs: RunLogs | None = None
        self._watch: TransferWatch | None = None
        # Two callbacks must be told apart before a Trainer numbers them.
        self._automatic_name = f"instance {next(self._instances)}"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Take a name among the callbacks of this Trainer, and forget the previous fit unless this one continues it."""
        siblings = leep_callbacks(trainer)
        unnamed = [callback for callback in siblings if callback.name is None]
        given = {callback.name for callback in siblings}
        names = ["leep", *(f"leep_{number}" for number in range(2, 2 + len(siblings)))]
        free = [name for name in names if name not in given]
        self._automatic_name = dict(zip(unnamed, free, strict=False)).get(self, self._automatic_name)
        if stage != "fit":
            return
        # Comparing identities is safe: a Trainer keeps its module alive until it has the next one.
        fitted, before = (id(trainer), id(pl_module)), self._fitted
        if fitted != before or trainer.global_step == 0:
            self._state = FitState()  # a checkpoint is loaded after this
            if before is not None and before[0] == fitted[0]:
                self._state.first_epoch = trainer.current_epoch  # a Trainer keeps counting with the next module
        self._fitted, self._watch, self._logs = fitted, None, None
        self._barrier.reset()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find what is trained, before the first step changes it."""
        self._trainable(trainer, pl_module)
        self._logs = RunLogs(trainer, self._barrier, self.log_name, self._keeper.source(pl_module, self._scorer.source))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Score the source, unless a checkpoint brought its report, and log what is expected."""
        state, scored = self._state, None
        if state.report is None:
            with self._barrier.contain(SCORING, SCORING_ADVICE):
                scored = self._scorer.run(trainer, pl_module)
                state.report, state.forecast = scored.report, None
        if state.report is None and self._logs is not None:
            self._logs.not_scored(self._barrier.said(SCORING))
        if state.report is not None and self._logs is not None:
            facts = TrainerFacts()
            with self._barrier.contain("read what the Trainer plans", "The forecast is made without it."):
                facts = TrainerFacts.of(trainer, self.monitor, state.first_epoch)
            trainable = self._trainable(trainer, pl_module)  # again: the module's hooks have run since
            places = self._keeper.folder(trainer), self._scorer.source
            look = partial(look_ahead, trainer, self._barrier, state, facts, *places)
            asked = self.monitor, self.reference, self._keeper
            self._watch = TransferWatch(self._logs, state, look, look(trainable), *asked)
            self._watch.start(scored, trainable)
            self._keeper.show_ranking(self._logs)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """See which parameters have a gradient; at the first step, what is trained."""
        if self._state.trained.see_gradients(pl_module):
            self._see_trained(trainer, pl_module)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember the value from before the validation."""
        if self._watch is not None:
            self._watch.start_validation(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare the accuracy that validation logged with the prediction."""
        if self._watch is not None:
            self._watch.end_validation(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Take what the previous epoch logged outside validation, now that the module's own hooks are done."""
        if self._watch is not None:
            self._watch.start_epoch(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note that an epoch is over, and what was trained in it."""
        if self._watch is not None:
            self._watch.end_epoch(trainer)
            self._state.trained.end_epoch()
            self._see_trained(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Log how the run came out, and add its record to the history."""
        watch, self._watch = self._watch, None  # what is validated or tested later does not belong to the fit
        if watch is None:
            return
        stopped = why_cut_short(trainer)
        try:
            watch.end(trainer, stopped)
        finally:  # a fault in a logger must not cost the record
            watch.close(trainer, not stopped and saw_all_data(trainer, watch.outlook.facts), saved=True)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Log how far an interrupted run came."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.conclude()
            watch.close(trainer, complete=False, saved=False)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let go of the Trainer."""
        self._logs = None

    def state_dict(self) -> dict[str, Any]:
        """What is known of the fit, as plain values; nothing of the source."""
        if self._watch is not None:  # checkpoints are saved after the module's hook, and before the next one of ours
            self._watch.take_logged_in_epoch(self._watch.logs.trainer)
        return self._state.to_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`. A damaged state gives a warning, and the source is scored again."""
        self._state = FitState()
        with self._barrier.contain("read its state from the checkpoint", "The source is scored again if it can be."):
            self._state = FitState.from_dict(state_dict)

    @property
    def state_key(self) -> str:
        """The callback's name in checkpoints."""
        return self._generate_state_key(name=self.log_name)

    @property
    def log_name(self) -> str:
        """First part of every tag. It is final once a Trainer has set the callback up."""
        return self.name or self._automatic_name

    @property
    def report(self) -> TransferabilityReport | None:
        """Scores of the source; None before it has been scored, and in a process that only spawned the others."""
        return self._state.report

    @property
    def forecast(self) -> AccuracyForecast | None:
        """The accuracy forecast before training, if there is one."""
        return self._state.forecast

    @property
    def curve(self) -> AccuracyCurve:
        """Accuracy at each validation of this fit."""
        return self._state.curve

    def _trainable(self, trainer: Any, pl_module: Any) -> str:
        """What is trained, as far as it can be seen before it has changed."""
        with self._barrier.contain("see what is trained", "Pass `trainable=`."):
            self._state.trained.look(trainer, pl_module, self._scorer.source)
        return self._keeper.trainable or self._state.trained.expected

    def _see_trained(self, trainer: Any, pl_module: Any) -> None:
        """See what is trained; on all processes together."""
        trainable = self._trainable(trainer, pl_module)
        if self._watch is not None and trainer.current_epoch == self._state.first_epoch:
            self._watch.forecast_again(trainer.strategy.broadcast(trainable))


def leep_callbacks(trainer: Any) -> list[LEEPCallback]:
    """The callbacks of this class in a Trainer, in its order."""
    return [callback for callback in trainer.callbacks if isinstance(callback, LEEPCallback)]
