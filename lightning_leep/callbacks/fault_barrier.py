"""What a fault does: one warning and training goes on, or an error."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_leep.utils.distributed import OtherProcessError


class FaultBarrier:
    """Turns faults into warnings, one for each task, unless it is strict.

    Args:
        strict: Whether faults are raised instead.
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self._warned: set[str] = set()

    def reset(self) -> None:
        """Warn of every task again."""
        self._warned.clear()

    @contextmanager
    def contain(self, task: str, advice: str, strict: bool | None = None) -> Iterator[None]:
        """Warn of an ``Exception`` within the context and go on after it; ``KeyboardInterrupt`` and its like pass.

        Args:
            task: What was tried, as it ends "LEEPCallback could not".
            advice: What the user can do about it, a sentence.
            strict: Overrides the barrier's own strictness.
        """
        try:
            yield
        except Exception as error:
            if self.strict if strict is None else strict:
                raise
            if not isinstance(error, OtherProcessError):  # the process where it happened warns
                self.warn(task, f"LEEPCallback could not {task}: {_described(error)} {advice} Training goes on.")

    def warn(self, task: str, message: str) -> None:
        """Warn once of a task, on this process."""
        if task not in self._warned:
            self._warned.add(task)
            warnings.warn(message, UserWarning, stacklevel=4)


def _described(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
