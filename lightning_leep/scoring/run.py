"""One pass of a source model over labelled target data: the only place that runs a model."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from typing import Any

import torch

from lightning_leep.functional.inputs import check_flag, check_ignore_index, check_layout, check_num_classes
from lightning_leep.functional.nleep import require_scikit_learn
from lightning_leep.functional.permutation import check_num_permutations
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.scoring.batches import Adapter, source_module, source_output, split_batch
from lightning_leep.scoring.collector import Outputs, ScoreCollector
from lightning_leep.scoring.execution import (
    AUTOCAST_DTYPES,
    autocast,
    evaluation_mode,
    len_or_none,
    preserved_rng,
    progress_bar,
    run_eagerly,
    source_device,
)
from lightning_leep.scoring.first_batch import agree_on_sizes
from lightning_leep.scoring.head import capture_head_input
from lightning_leep.scoring.memory import check_memory, check_readable_twice, choose_memory
from lightning_leep.utils.devices import move_to_device
from lightning_leep.utils.distributed import on_every_process


def score(
    source: Callable[..., Any],
    dataloader: Iterable[Any],
    num_target_classes: int,
    *,
    from_logits: bool = True,
    ignore_index: int | None = None,
    adapter: Adapter = split_batch,
    device: torch.device | str | None = None,
    precision: str | Callable[[], AbstractContextManager] = "32-true",
    transfer: Callable[[Any], Any] | None = None,
    progress: bool = True,
    head: str | None = None,
    memory: str | int = "device",
    top_k: int = 64,
    num_permutations: int = 20,
    nleep: bool = False,
) -> TransferabilityReport:
    """Run a pre-trained classifier over labelled target data once and report how well it will transfer.

    The source is run in evaluation mode without gradients: the module itself, and every module that a function refers
    to. The mode of each and the state of the random number generators are as before afterwards, whatever happens. Under
    an initialised process group every process scores its own batches (some may have none) and all return the report of
    all rows.

    Args:
        source: Classifier with its original head: a module, or a callable (a bound method of a module counts as that
            module) from inputs to logits ``[N, Z]`` or ``[N, Z, d1, ...]``, or to something with ``.logits``.
        dataloader: Batches of this process: pairs ``(inputs, target)``, mappings with ``labels``, or what ``adapter``
            takes. Each image must be in them once: to standard errors, the permutation null, leave-one-out scores and
            the linear probe an image that comes again (a sampler with replacement, copies by augmentation) is one more
            independent image whose label was foreseen, so that they find a signal in noise.
        num_target_classes: C.
        from_logits: Whether the source returns logits or probabilities.
        ignore_index: Label of the rows that are left out.
        adapter: Function from a batch to ``(inputs, target)``.
        device: Where the batches go; None for where the source's parameters are (CPU if it has none). The source
            itself is not moved.
        precision: "32-true", "16-mixed" or "bf16-mixed" (autocast), or a function that returns the context in which
            the source is called.
        transfer: Function that brings a batch to the device; replaces the plain move to ``device``.
        progress: Whether the first process shows a progress bar.
        head: Name of the source's last layer, whose input are the features (``"classifier.6"``). None finds it among
            the layers that make as many outputs as the source returns: the linear layer named ``fc``, ``classifier``,
            ``head`` or ``linear``, or else the linear layer that runs last, or any module under such a name
            (:func:`~lightning_leep.scoring.head.capture_head_input`). Without one, or when it runs more than once for a
            batch, the feature scores are made from the logits, and the report says so.
        memory: How rows are kept until all are known: "device" (where they were computed), "cpu", "bfloat16" (rounded),
            "second_pass" (not at all: the loader is read twice and must give the same rows), "top_k" (the largest
            source probabilities of each row: LEEP becomes an estimate with an interval, the other scores of the
            source's output are left out), or a number of bytes for each process: "device" if the rows fit, taking
            every batch to be of the size of the first, else "second_pass".
        top_k: Source probabilities kept of each row with ``memory="top_k"``.
        num_permutations: Shuffles of the labels for the null distribution of LEEP, which needs kept rows; 0 for none,
            else at least 19, the fewest that can give a p-value of 0.05.
        nleep: Whether to compute N-LEEP as well, which needs scikit-learn and features kept as they are, and fits a
            mixture of 5 C Gaussians.

    Returns:
        The report, with the joint ``[C, Z]`` attached.

    Raises:
        TypeError: If batches, outputs or labels have the wrong type.
        ValueError: If an argument or a batch is invalid, there are fewer than 2 labelled rows, or a second pass is
            needed and the loader cannot be read twice or gives other rows then.
        ModuleNotFoundError: If N-LEEP is asked for without scikit-learn.
        OtherProcessError: If another process failed; its own error is raised there.
    """
    check_num_classes("num_target_classes", num_target_classes)
    num_target_classes = int(num_target_classes)  # a report is written as JSON
    check_ignore_index(ignore_index)
    for name, flag in (("from_logits", from_logits), ("progress", progress), ("nleep", nleep)):
        check_flag(name, flag)
    check_memory(memory, top_k, nleep)
    check_num_permutations(num_permutations)
    module = source_module(source)
    device = source_device(source, device)
    if not callable(precision) and precision not in AUTOCAST_DTYPES:
        raise ValueError(f"`precision` must be one of {sorted(AUTOCAST_DTYPES)} or a function, got {precision!r}.")
    context = precision if callable(precision) else partial(autocast, device, precision)
    transfer = transfer or partial(move_to_device, device=device)

    start = time.perf_counter()
    with (
        preserved_rng(),
        run_eagerly(),
        evaluation_mode(source) as running,
        torch.no_grad(),
        capture_head_input(module, head) as captured,
    ):

        def outputs() -> Iterator[Outputs]:
            for batch in progress_bar(dataloader, progress):
                inputs, target = adapter(transfer(batch))
                with context(), running():
                    preds = source_output(source, inputs)
                check_layout(preds, target, None)
                # Probabilities are kept as they are; the source may use their memory again.
                kept = preds if from_logits else preds.clone()
                yield kept, captured.take(preds, target), target.to(preds.device)

        def first_batch() -> Outputs | None:
            if nleep:
                require_scikit_learn()
            return next(first_outputs, None)

        first_outputs = outputs()
        # The first batch tells the sizes of everything, to processes without data as well.
        first = on_every_process(first_batch, device)
        sizes = agree_on_sizes(first, captured, len_or_none(dataloader), device)
        chosen = choose_memory(memory, top_k, sizes.num_bytes, nleep)
        on_every_process(lambda: check_readable_twice(dataloader, chosen), device)
        collector = ScoreCollector(
            num_target_classes,
            sizes.num_source_classes,
            sizes.num_features,
            from_logits,
            ignore_index,
            chosen,
            num_permutations,
            nleep,
            device if first is None else first[0].device,
        )
        batches = () if first is None else chain([first], first_outputs)
        on_every_process(lambda: collector.first_pass(sizes.choose_features(batches)), device)
        if not chosen.keep_rows:
            second_pass = collector.second_pass()
            on_every_process(lambda: second_pass(sizes.choose_features(outputs())), device)
        return collector.report(lambda: time.perf_counter() - start, sizes.feature_layer, sizes.rows_per_image)
