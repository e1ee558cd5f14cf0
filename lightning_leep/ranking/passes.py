"""One source after the other over the same rows: what fails is named, and the others go on."""

import gc
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import torch

from lightning_leep.ranking.data import SharedBatches
from lightning_leep.ranking.source import Source
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.scoring.batches import call_source, split_pair_or_mapping
from lightning_leep.scoring.run import score
from lightning_leep.scoring.source import evaluation_mode, preserved_rng, source_device
from lightning_leep.utils.checks import error_text
from lightning_leep.utils.devices import move_to_device
from lightning_leep.utils.distributed import OtherProcessError, gather_objects, on_every_process

#: What messages say when memory is used up, in lower case.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class SourceError(Exception):
    """A source could not be scored; the message says why, and is the same on all processes."""


@dataclass(frozen=True)
class Passes:
    """How each source is run; arguments as in :func:`~lightning_leep.rank_sources`."""

    num_target_classes: int | None
    device: torch.device
    precision: str | Callable[[], AbstractContextManager]

    def score(self, source: Source, batches: SharedBatches, progress: bool) -> TransferabilityReport:
        """Score a source on all processes; while memory runs out, with half as many rows at a time.

        Raises:
            SourceError: If it fails.
        """
        batches.most_rows = None
        while True:
            fault = ("", False)
            try:
                return self._attempt(source, batches, progress)
            except Exception as error:  # kept as text: its traceback would keep what the source computed in memory
                fault = described(error), _is_out_of_memory(error)
            self._free()
            faults = gather_objects(fault, self.device)
            if any(is_memory for _, is_memory in faults) and all(gather_objects(batches.halve(), self.device)):
                continue
            own = [text for text, _ in faults if not text.startswith(OtherProcessError.__name__)]
            raise SourceError((own or [fault[0]])[0])

    def _attempt(self, source: Source, batches: SharedBatches, progress: bool) -> TransferabilityReport:
        with ExitStack() as stack:
            model = on_every_process(lambda: stack.enter_context(source.loaded(self.device)), self.device)
            return score(
                model,
                batches,
                self.num_target_classes,
                source.scoring_options(),
                device=self._device_of(source),
                precision=self.precision,
                progress=progress,
            )

    def estimated_seconds(self, source: Source, open_batches: Callable[[], SharedBatches]) -> float:
        """How long scoring a source will take: loading it and running its first batch; infinite if that fails."""
        try:
            start = time.perf_counter()
            with preserved_rng(), source.loaded(self.device) as model, evaluation_mode(model) as running:
                options, device = source.scoring_options(), source_device(model, self._device_of(source))
                batches, before = open_batches(), self._now()
                batch = move_to_device(next(iter(batches)), device)
                reading = (self._now() - before) / max(1, getattr(batches.loader, "num_workers", 0))
                inputs, _ = (options.split_batch or split_pair_or_mapping)(batch)
                with torch.no_grad(), running():
                    call_source(model, inputs)  # the first run prepares what later ones use
                    loaded = self._now()
                    call_source(model, inputs)
                seconds = loaded - start + (self._now() - loaded + reading) * (batches.length or 1)
        except Exception:  # said when the source is scored
            seconds = math.inf
        self._free()
        return max(gather_objects(seconds, self.device))

    def _device_of(self, source: Source) -> torch.device | None:
        """Where a factory's model goes; None for a given model, which stays where it is."""
        return self.device if source.is_factory else None

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def described(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error_text(error)}".split()).removesuffix(":")


def _is_out_of_memory(error: BaseException) -> bool:
    is_told = isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY)
    return is_told or isinstance(error, MemoryError)
