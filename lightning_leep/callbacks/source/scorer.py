"""Scoring the source model from within a Trainer, on the training data or a loader of the user's."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_leep.callbacks.source.class_info import (
    find_class_names,
    find_num_target_classes,
    find_source_class_names,
)
from lightning_leep.callbacks.source.forked_batches import ForkedBatches, can_fork
from lightning_leep.callbacks.source.isolation import LentCopies, shares_weights
from lightning_leep.callbacks.source.training_data import check_not_trained_on, skipped_batch_hooks, training_data
from lightning_leep.functional.inputs import check_num_classes
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.scoring.options import ScoringOptions, check_options
from lightning_leep.scoring.run import score
from lightning_leep.scoring.shared_rows import ScoringData, given_data
from lightning_leep.scoring.source import modules_behind, source_module
from lightning_leep.utils.devices import move_to_device
from lightning_leep.utils.distributed import on_every_process

#: Strategies of the Trainer under which all processes must take part in a forward pass of the trained module.
SHARDING_STRATEGIES = {"FSDPStrategy", "ModelParallelStrategy"}


@dataclass(frozen=True)
class ScoredSource:
    """The report, and the class names where they are known."""

    report: TransferabilityReport
    target_class_names: Sequence[str] | None
    source_class_names: Sequence[str] | None


@dataclass(frozen=True)
class SourceScorer:
    """The arguments of LEEPCallback that concern scoring."""

    source: Callable[..., Any] | None
    options: ScoringOptions | None
    num_target_classes: int | None
    dataloader: Iterable[Any] | None
    max_samples: int | None
    target_class_names: Sequence[str] | None
    source_class_names: Sequence[str] | None

    def __post_init__(self) -> None:
        if self.source is not None and not callable(self.source):
            raise TypeError(f"`source` must be a module, a function or None, got {type(self.source).__name__}.")
        check_options("scoring", self.options)
        if self.dataloader is not None and not isinstance(self.dataloader, Iterable):
            raise TypeError(f"`dataloader` must be iterable, got {type(self.dataloader).__name__}.")
        if self.num_target_classes is not None:
            check_num_classes("num_target_classes", self.num_target_classes)
        if self.max_samples is not None:
            check_num_classes("max_samples", self.max_samples, minimum=2)
        for argument in ("target_class_names", "source_class_names"):
            names = getattr(self, argument)
            if isinstance(names, str) or not isinstance(names, Sequence | None):
                raise TypeError(f"`{argument}` must be a sequence of names, got {type(names).__name__}.")

    def run(self, trainer: Any, pl_module: Any) -> ScoredSource:
        """Score the source. If this fails on one process, it fails on all, there with ``OtherProcessError``."""
        device = trainer.strategy.root_device
        split_batch = None if self.options is None else self.options.split_batch
        with ExitStack() as stack:

            def prepare() -> tuple[Callable[..., Any], ScoringData, int | None]:
                source = self.find_source(pl_module)
                _check_weights(trainer, pl_module, source_module(source))
                data = self.find_data(trainer)
                places = trainer.datamodule, pl_module, data.dataset
                classes = self.num_target_classes or find_num_target_classes(*places)
                if self.target_class_names is not None:
                    given = len(self.target_class_names)
                    classes = classes or given
                    if given != classes:
                        raise ValueError(
                            f"`target_class_names` must name the {classes} target classes, got {given} names."
                        )
                stack.callback(lent.give_back)
                if isinstance(generator := getattr(data.batches, "generator", None), torch.Generator):
                    stack.callback(generator.set_state, generator.get_state())  # seeds of workers are drawn from it
                module = source_module(source)
                if module is None or shares_weights(module, pl_module):
                    lent.lend(pl_module)  # a function may call any part of it
                if module is not None:
                    lent.lend(module)
                return source, data, classes

            lent = LentCopies(device, pl_module)

            @contextmanager
            def context() -> Iterator[None]:
                with trainer.precision_plugin.forward_context(), lent.running():
                    yield

            # A process that fails before it starts must not leave the others waiting in the middle of scoring.
            source, data, num_target_classes = on_every_process(prepare, device)
            report = on_every_process(
                lambda: score(
                    source,
                    data.batches,
                    num_target_classes,
                    self.options,
                    device=device,
                    precision=context,
                    to_device=_to_device(trainer, pl_module, source),
                    progress=trainer.progress_bar_callback is not None,
                ),
                device,
            )
        # A `split_batch` of the user's may already do what the hooks do.
        skipped = skipped_batch_hooks(trainer, pl_module) if split_batch is None else ()
        reading = data.batches.notes if isinstance(data.batches, ForkedBatches) else ()
        return ScoredSource(
            replace(report, notes=(*report.notes, *data.notes, *reading, *skipped)),
            self.target_class_names or find_class_names(trainer.datamodule, data.dataset, report.num_target_classes),
            self.source_class_names or find_source_class_names(source, report.num_source_classes),
        )

    def find_source(self, pl_module: Any) -> Callable[..., Any]:
        """Return the given source, or the module's own ``source_logits``."""
        source = self.source if self.source is not None else getattr(pl_module, "source_logits", None)
        if not callable(source):
            raise ValueError(
                f"There is no source model: {type(pl_module).__name__} has no method `source_logits(inputs)`. Add one, "
                "or pass `source=`, the pre-trained classifier with its original head, to LEEPCallback."
            )
        return source

    def find_data(self, trainer: Any) -> ScoringData:
        """Return this process's share of the data."""
        if self.dataloader is None:
            data = training_data(trainer, self.max_samples)
        else:
            data = given_data(self.dataloader, self.max_samples)
            check_not_trained_on(data.batches, trainer)
        return replace(data, batches=ForkedBatches(data.batches)) if can_fork(data.batches) else data


def _check_weights(trainer: Any, pl_module: nn.Module, module: nn.Module | None) -> None:
    """Raise ``ValueError`` if a source with the module's own weights would be misread, or would hang."""
    if module is not None and not shares_weights(module, pl_module):
        return
    strategy, steps, obstacle = trainer.strategy, trainer.global_step, ""
    names = {cls.__name__ for cls in type(strategy).__mro__}
    if SHARDING_STRATEGIES & names or getattr(strategy, "zero_stage_3", False):
        obstacle = f"{type(strategy).__name__} spreads the module's weights over the processes."
    elif trainer.ckpt_path is not None and steps > 0:
        obstacle = f"The checkpoint holds no report, and the source may have been trained for {steps} steps already."
    if obstacle:
        raise ValueError(f"{obstacle} Pass `source=`, a module with weights of its own, to LEEPCallback.")


def _to_device(trainer: Any, pl_module: nn.Module, source: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return the function that brings a batch to the device and to the dtype that the source computes in."""
    device = trainer.strategy.root_device
    convert = trainer.precision_plugin.convert_input
    modules = modules_behind(source)
    dtype = next((p.dtype for module in modules for p in module.parameters() if p.is_floating_point()), None)
    # The Trainer's precision did not convert other modules' weights, so it must not convert their inputs either.
    if dtype is not None and not any(shares_weights(module, pl_module) for module in modules):

        def convert(batch: Any) -> Any:
            return apply_to_collection(batch, Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t)

    # Not `strategy.batch_to_device`: it would run the user's batch hooks (mix-up, say).
    return lambda batch: move_to_device(convert(batch), device)
