"""A scoring pass: the only place that runs a source model over data."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from itertools import chain
from typing import Any, Unpack

import torch

from lightning_leep.functional.inputs import check_num_classes
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.scoring.collector import ScoreCollector
from lightning_leep.scoring.first_batch import PassPlan
from lightning_leep.scoring.head import capture_head_input
from lightning_leep.scoring.layers import capture_layers
from lightning_leep.scoring.options import OptionNames, ScoringOptions, merged_options
from lightning_leep.scoring.source import (
    Outputs,
    SourceRun,
    evaluation_mode,
    preserved_rng,
    run_eagerly,
    source_device,
    source_module,
)
from lightning_leep.utils.distributed import on_every_process


def score(
    source: Callable[..., Any],
    dataloader: Iterable[Any],
    num_target_classes: int,
    options: ScoringOptions | None = None,
    *,
    device: torch.device | str | None = None,
    precision: str | Callable[[], AbstractContextManager] = "32-true",
    to_device: Callable[[Any], Any] | None = None,
    progress: bool = True,
    **flat: Unpack[OptionNames],
) -> TransferabilityReport:
    """Run a pre-trained classifier over labelled target data and report how well it will transfer.

    The source runs in evaluation mode without gradients, and so does every module that a function refers to. The mode
    of each module and the random states are restored, even after an error. Under an initialised process group, each
    process scores its own batches (some may have none), and all return the report of all rows.

    Args:
        source: Classifier with its original head: a module, or a callable (a bound method of a module counts as that
            module) from inputs to logits ``[N, Z]`` or ``[N, Z, d1, ...]``, or to something with ``.logits``.
        dataloader: Batches of this process: pairs ``(inputs, target)``, mappings with ``labels``, or what
            ``split_batch`` takes. Each image should come once. A repeated image (sampled with replacement, or an
            augmented copy) counts as one more independent image, so that standard errors, the permutation test,
            leave-one-out scores and the linear probe find a signal in noise.
        num_target_classes: C.
        options: What is computed and how a batch is read; None for the defaults.
        device: Where the batches go; None for where the source's parameters are, or the CPU without parameters. The
            source itself is not moved.
        precision: "32-true", "16-mixed" or "bf16-mixed" (autocast), or a function that returns the context in which
            the source is called.
        to_device: Function that brings a batch to the device, instead of a plain move to ``device``.
        progress: Whether the first process shows a progress bar.
        **flat: Options by name, as in ``score(..., ignore_index=0)``; each overrides the one in ``options``.

    Returns:
        The report, with the joint ``[C, Z]`` attached.

    Raises:
        TypeError: If an argument, a batch, an output or the labels have the wrong type.
        ValueError: If an argument or a batch is invalid, processes were given different arguments, there are fewer
            than 2 labelled rows, or a second pass cannot read the same rows again.
        ModuleNotFoundError: If N-LEEP is asked for without scikit-learn.
        OtherProcessError: If another process failed; its own error is raised there.
    """
    start = time.perf_counter()
    device = source_device(source, device)
    with preserved_rng(), run_eagerly(), evaluation_mode(source) as running, torch.no_grad(), ExitStack() as stack:

        def begin() -> tuple[PassPlan, Callable[[], Iterator[Outputs]], Iterator[Outputs], Outputs | None]:
            """Do all that may fail on one process alone before the processes first meet."""
            check_num_classes("num_target_classes", num_target_classes)
            chosen = merged_options(options, flat)
            run = SourceRun(source, dataloader, chosen, device, precision, running, to_device, progress)
            module = source_module(source)
            captured = stack.enter_context(capture_head_input(module, chosen.head))
            layers = stack.enter_context(capture_layers(module, chosen.scored_layers, chosen.pooling))
            batches = run.outputs(captured, layers)
            first = next(batches, None)
            plan = PassPlan(int(num_target_classes), chosen)  # a report is written as JSON, which has no NumPy integers
            return plan.with_batch(first, captured.name, layers), partial(run.outputs, captured, layers), batches, first

        plan, read_again, batches, first = on_every_process(begin, device)
        plan = plan.agree(device)
        collector = ScoreCollector(plan, device if first is None else first[0].device)
        on_every_process(lambda: collector.first_pass(chain([] if first is None else [first], batches)), device)
        if not plan.options.keeps_rows:
            second_pass = collector.second_pass()
            on_every_process(lambda: second_pass(read_again()), device)
        return collector.report(lambda: time.perf_counter() - start)
