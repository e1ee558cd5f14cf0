"""A scoring pass: the only place that runs a source model over data, or takes what it returned before."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from lightning_leep.functional.inputs import check_num_classes
from lightning_leep.records.layers import HEAD_INPUT
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.scoring.collector import ScoreCollector
from lightning_leep.scoring.first_batch import PassPlan
from lightning_leep.scoring.head import HeadInput, capture_head_input
from lightning_leep.scoring.layer_features import LayerFeatures
from lightning_leep.scoring.layers import LayerOutputs, capture_layers
from lightning_leep.scoring.options import OptionNames, ScoringOptions, merged_options
from lightning_leep.scoring.outputs import OutputReader, count_classes, two_classes
from lightning_leep.scoring.parameters import numbers
from lightning_leep.scoring.pooling import Pooled
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
    num_target_classes: int | None = None,
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
        source: Classifier with its original head (without one: ``head=False``): a module, or a callable (a bound method
            of a module counts as that module) from inputs to logits ``[N, Z]``, ``[N, Z, d1, ...]`` or ``[N, ..., Z]``,
            to something with ``.logits``, or to a tuple with one tensor. A single output is read as a binary
            classifier: its two classes are 0 and the logit, or 1 - p and p.
        dataloader: Batches of this process: pairs ``(inputs, target)``, mappings with ``labels`` (or ``label``,
            ``target``, ``targets``), or what ``split_batch`` takes. Each image should come once. A repeated image
            (sampled with replacement, or an augmented copy) counts as one more independent image, so that standard
            errors, the permutation test, leave-one-out scores and the linear probe find a signal in noise.
        num_target_classes: C. None takes the largest label plus 1, and the report says so; classes without a row change
            no score. With ``memory="second_pass"`` the loader is then read once more, for the labels alone.
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
            chosen = merged_options(options, flat)
            run = SourceRun(source, dataloader, chosen, device, precision, running, to_device, progress)
            module = source_module(source)
            if chosen.head is None and getattr(module, "num_classes", None) == 0:
                raise ValueError(
                    "`source` has no head (its `num_classes` is 0), so it returns features. Pass `head=False`, which "
                    "scores them and leaves LEEP out, or the source with its original head."
                )
            plan = _first_plan(num_target_classes, chosen, run.labels())
            hooked = (None,) if chosen.head is False else (module, chosen.head)
            captured = stack.enter_context(capture_head_input(*hooked))
            layers = stack.enter_context(capture_layers(module, chosen.scored_layers, chosen.pooling))
            readers = captured, OutputReader(chosen.class_dim), layers
            # Closed after an error too: a worker of the loader that is left over is waited for, seconds, at its end.
            batches = stack.enter_context(closing(run.outputs(*readers)))
            first = next(batches, None)
            size = None if module is None else numbers(module.parameters())
            plan = replace(plan.with_batch(first, *readers), num_parameters=size)
            return plan, partial(run.outputs, *readers), batches, first

        plan, read_again, batches, first = on_every_process(begin, device)
        plan = plan.agree(device)
        here = device if first is None else first[0].device
        return _report(plan, chain([] if first is None else [first], batches), read_again, here, device, start)


def score_outputs(
    logits: Any,
    target: Any,
    num_target_classes: int | None = None,
    *,
    features: Any = None,
    layers: Mapping[str, Any] | None = None,
    options: ScoringOptions | None = None,
) -> TransferabilityReport:
    """Score outputs of a source that were computed before, as :func:`score` does. No model runs.

    Under an initialised process group each process gives its own rows, and all return the report of all rows.

    Args:
        logits: ``[N, Z]``, ``[N, Z, d1, ...]`` or ``[N, ..., Z]`` outputs, a tensor or a NumPy array; probabilities
            with ``ScoringOptions(from_logits=False)``. None, for a source without a head, leaves out their scores.
        target: ``[N]`` or ``[N, d1, ...]`` integer labels, a tensor or a NumPy array.
        num_target_classes: C. None takes the largest label plus 1, and the report says so.
        features: ``[N, d]``, or ``[N, d, d1, ...]`` or ``[N, ..., d]`` as the outputs; None leaves out their scores.
        layers: ``[N, d]`` features of layers, by name in the order in which they run; None leaves them out. Of
            ``features`` ``[N, d]`` a last one, "head input", is made, unless one of them holds the same.
        options: What is computed; None for the defaults. How a batch is read and a head is found does not matter here.

    Returns:
        The report, with the joint ``[C, Z]`` attached.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes or values are invalid, or there are fewer than 2 labelled rows.

    Example:
        >>> import torch
        >>> report = score_outputs(torch.eye(3).repeat(20, 1), torch.arange(60) % 3, 3)
        >>> round(report.leep, 3), report.linear_probe_accuracy
        (-0.863, None)
    """
    start = time.perf_counter()
    device = next((given.device for given in (logits, features) if isinstance(given, Tensor)), torch.device("cpu"))

    def begin() -> tuple[PassPlan, Outputs]:
        if logits is None and features is None:
            raise ValueError("`logits` or `features` must be given, got None for both.")
        chosen = replace(merged_options(options, {}), head=False if logits is None else None)
        if features is None:
            chosen = replace(chosen, feature_scores=False, nleep=False, layers=None)
        labels, reader = _as_tensor("target", target).to(device), OutputReader(chosen.class_dim)
        preds = None if logits is None else reader.read(_as_tensor("logits", logits), labels)
        rows = None if features is None else reader.read_embedding(_as_tensor("features", features).to(device), labels)
        if preds is not None and reader.single:
            preds = two_classes(preds, chosen.from_logits)
        given = {name: _as_layer(name, value, len(labels)).to(device) for name, value in (layers or {}).items()}
        pooled = {name: Pooled(value) for name, value in given.items()}
        if pooled and rows is not None and rows.ndim == 2:
            pooled[HEAD_INPUT] = Pooled(rows)
        outputs: Any = rows if preds is None else preds
        batch = Outputs(outputs, rows, labels, pooled)
        plan = _first_plan(num_target_classes, chosen, [labels])
        return plan.with_batch(batch, HeadInput({}), reader, LayerOutputs(None, ())), batch

    with torch.no_grad():
        plan, batch = on_every_process(begin, device)
        return _report(plan.agree(device), [batch], lambda: iter([batch]), device, device, start)


def _first_plan(num_target_classes: int | None, options: ScoringOptions, labels: Iterable[Tensor]) -> PassPlan:
    if num_target_classes is None:
        # Nothing is kept in a second pass until C is known, so the labels are read before it.
        return PassPlan(0, options, 0 if options.keeps_rows else count_classes(labels, options.ignore_index))
    check_num_classes("num_target_classes", num_target_classes)
    return PassPlan(int(num_target_classes), options)  # a report is written as JSON, which has no NumPy integers


def _report(
    plan: PassPlan,
    batches: Iterable[Outputs],
    read_again: Callable[[], Iterator[Outputs]],
    states: torch.device,
    device: torch.device,
    start: float,
) -> TransferabilityReport:
    """Score the batches of this process: ``states`` is where sums are kept, ``device`` where processes meet."""
    layer_features = LayerFeatures(plan.layers)
    plan, batches = plan.read_classes(map(layer_features.join, batches), device)
    collector = ScoreCollector(plan, states)
    on_every_process(lambda: collector.first_pass(batches), device)
    if not plan.options.keeps_rows:
        second_pass = collector.second_pass()
        on_every_process(lambda: second_pass(map(layer_features.join, read_again())), device)
    return collector.report(lambda: time.perf_counter() - start)


def _as_layer(name: str, values: Any, num_rows: int) -> Tensor:
    tensor = _as_tensor(f"layers[{name!r}]", values)
    if not tensor.is_floating_point() or tensor.ndim != 2 or len(tensor) != num_rows:
        raise ValueError(
            f"`layers[{name!r}]` must hold one row of floating-point features for each of {num_rows} labels, "
            f"got {tensor.dtype} of shape {list(tensor.shape)}."
        )
    return tensor


def _as_tensor(name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.array(values))  # a copy: torch takes neither read-only nor reversed arrays
    raise TypeError(f"`{name}` must be a tensor or a NumPy array, got {type(values).__name__}.")
