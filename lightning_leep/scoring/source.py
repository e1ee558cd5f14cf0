"""Running a source model: what it is given, its device, precision and mode, the random state, the progress bar."""

import random
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from inspect import getclosurevars, isfunction
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import Tensor, nn
from tqdm.auto import tqdm

from lightning_leep.functional.inputs import check_flag
from lightning_leep.functional.nleep import require_scikit_learn
from lightning_leep.scoring.batches import call_source, split_pair_or_mapping
from lightning_leep.scoring.head import HeadInput
from lightning_leep.scoring.layers import LayerOutputs
from lightning_leep.scoring.options import ScoringOptions
from lightning_leep.scoring.outputs import OutputReader, two_classes
from lightning_leep.scoring.pooling import Pooled
from lightning_leep.utils.devices import move_to_device
from lightning_leep.utils.distributed import this_process
from lightning_leep.utils.first_run import on_first_run


class Outputs(NamedTuple):
    """What one batch gave."""

    preds: Tensor  #: what the source returned
    features: Tensor | None  #: what its head was given; None where there is nothing to score
    target: Tensor  #: labels
    layers: Mapping[str, Pooled] = {}  #: pooled outputs of its layers, by name
    layer_features: Tensor | None = None  #: these side by side, ``[N, D]``

    def to(self, device: torch.device) -> "Outputs":
        """The batch on another device."""
        moved: Outputs = apply_to_collection(self, Tensor, lambda tensor: tensor.to(device))
        return moved


AUTOCAST_DTYPES = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def source_module(source: Callable[..., Any]) -> nn.Module | None:
    """Return the module behind a source: itself, or the one whose bound method it is; None for other callables."""
    module = source if isinstance(source, nn.Module) else getattr(source, "__self__", None)
    return module if isinstance(module, nn.Module) else None


def modules_behind(source: Callable[..., Any]) -> list[nn.Module]:
    """Return the modules that a source shows: itself, or those that a function or a ``partial`` names or holds."""
    parts: list[Any] = [source]
    while isinstance(source, partial):
        parts += [source.func, *source.args, *source.keywords.values()]
        source = source.func
    if isfunction(source):
        names = getclosurevars(source)
        parts += [*names.nonlocals.values(), *names.globals.values()]
    elif source_module(source) is None:
        parts += getattr(source, "__dict__", {}).values()
    return [module for part in parts if (module := source_module(part)) is not None]


def source_device(source: Callable[..., Any], device: torch.device | str | None) -> torch.device:
    """Return the given device, else that of the parameters of the modules behind the source, else the CPU."""
    if device is not None:
        return torch.device(device)
    parameter = next((p for module in modules_behind(source) for p in module.parameters()), None)
    return parameter.device if parameter is not None else torch.device("cpu")


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return the context in which a source runs at a precision of ``AUTOCAST_DTYPES``."""
    dtype = AUTOCAST_DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the random states of Python, NumPy and torch afterwards, even after an error."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        torch.cuda.set_rng_state_all(cuda)


@contextmanager
def evaluation_mode(source: Callable[..., Any]) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Put a source's modules into evaluation mode, and restore the mode of each afterwards.

    It yields the context to call the source in: whatever other modules run there are put into evaluation mode as well.
    Only the flag ``training`` is set: a module's own ``train()`` may merge weights, unfreeze what the user froze, or
    raise.
    """
    modes: dict[int, tuple[nn.Module, bool]] = {}

    def evaluate(module: nn.Module) -> None:
        for part in module.modules():
            # A frozen TorchScript module has no mode.
            if id(part) not in modes and hasattr(part, "training"):
                modes[id(part)] = part, part.training
                part.training = False

    try:
        if (module := source_module(source)) is not None:
            evaluate(module)
        yield on_first_run(evaluate)
    finally:
        for part, training in modes.values():
            part.training = training


def run_eagerly() -> AbstractContextManager[Any]:
    """Return a context in which what ``torch.compile`` compiled runs as it was written.

    To compile it for another mode could use up the number of versions that a function may have, after which training
    would not run compiled code any more. Before torch 2.6 there is no such context.
    """
    is_used = "torch._dynamo" in sys.modules  # importing it takes seconds
    set_stance = getattr(torch.compiler, "set_stance", None)
    return set_stance("force_eager") if is_used and set_stance is not None else nullcontext()


def progress_bar(dataloader: Iterable[Any], progress: bool) -> Iterator[Any]:
    """Yield the batches of the loader, with a progress bar on the first process."""
    first = this_process()[0] == 0 and getattr(rank_zero_only, "rank", 0) == 0
    try:
        total: int | None = len(dataloader)  # type: ignore[arg-type]
    except TypeError:
        total = None
    hidden = not (progress and first)
    with tqdm(total=total, desc="Scoring the source model", unit="batch", leave=False, disable=hidden) as bar:
        # Given the loader, tqdm would ask it for two iterators, and each would start its own workers.
        for batch in dataloader:
            yield batch
            bar.update()


@dataclass(frozen=True)
class SourceRun:
    """A source, and how it runs over the batches of a loader; arguments as in :func:`~lightning_leep.score`."""

    source: Callable[..., Any]
    dataloader: Iterable[Any]
    options: ScoringOptions
    device: torch.device
    precision: str | Callable[[], AbstractContextManager]
    running: Callable[[], AbstractContextManager]  #: another context in which the source is called
    to_device: Callable[[Any], Any] | None
    progress: bool

    def __post_init__(self) -> None:
        if not callable(self.source):
            raise TypeError(f"`source` must be a module or a function, got {type(self.source).__name__}.")
        if not isinstance(self.dataloader, Iterable) and not hasattr(self.dataloader, "__getitem__"):
            raise TypeError(f"`dataloader` must be iterable, got {type(self.dataloader).__name__}.")
        if isinstance(self.dataloader, Iterator) and not self.options.keeps_rows:
            raise ValueError(
                "`dataloader` must be readable twice for a second pass, got an iterator "
                f"({type(self.dataloader).__name__}). Pass the loader itself, or another `memory`."
            )
        if not callable(self.precision) and self.precision not in AUTOCAST_DTYPES:
            raise ValueError(
                f"`precision` must be one of {', '.join(AUTOCAST_DTYPES)} or a function, got {self.precision!r}."
            )
        if self.to_device is not None and not callable(self.to_device):
            raise TypeError(f"`to_device` must be a function or None, got {type(self.to_device).__name__}.")
        check_flag("progress", self.progress)
        if self.options.nleep:
            require_scikit_learn()

    def labels(self) -> Iterator[Tensor]:
        """Read the loader for the labels alone; what is not a tensor is left to :meth:`outputs`."""
        for batch in self.dataloader:
            if isinstance(target := self._read(batch)[1], Tensor):
                yield target

    def outputs(
        self, captured: HeadInput, reader: OutputReader, layers: LayerOutputs
    ) -> Generator[Outputs, None, None]:
        """Run the source over the loader, once for each call, and yield what is captured of each batch."""
        context = self.precision if callable(self.precision) else partial(autocast, self.device, self.precision)
        for batch in progress_bar(self.dataloader, self.progress):
            inputs, target = self._read(batch)
            layers.begin(inputs, target)
            with context(), self.running():
                output = call_source(self.source, inputs)
            if self.options.head is False:
                embedding = reader.read_embedding(output, target).clone()  # the source may reuse its memory
                pooled = layers.take(embedding, None, embedding)
                yield Outputs(embedding, embedding, target.to(embedding.device), pooled)
                continue
            preds = reader.read(output, target)
            features = captured.take(preds, target)
            pooled = layers.take(preds, captured.name, features)
            if preds.shape[1] == 1:
                preds = two_classes(preds, self.options.from_logits)
            # Probabilities are kept as they are, and the source may reuse their memory.
            kept = preds if self.options.from_logits else preds.clone()
            yield Outputs(kept, features, target.to(preds.device), pooled)

    def _read(self, batch: Any) -> tuple[Any, Any]:
        moved = move_to_device(batch, self.device) if self.to_device is None else self.to_device(batch)
        inputs, target = (self.options.split_batch or split_pair_or_mapping)(moved)
        if isinstance(target, int) or getattr(target, "ndim", None) == 0:
            raise TypeError(
                f"`dataloader` must yield batches, got single rows from a {type(self.dataloader).__name__}. "
                "Wrap a data set: `DataLoader(data_set, batch_size=64)`."
            )
        return inputs, target
