"""What happens after a fault: one warning and training goes on, or an error."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_leep.utils.distributed import OtherProcessError


class FaultBarrier:
    """Turns faults into warnings, one for each task, or lets them pass if it is strict.

    Args:
        strict: Whether faults pass.
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self._warned: set[str] = set()

    def reset(self) -> None:
        """Start to warn anew."""
        self._warned.clear()

    @contextmanager
    def contain(self, task: str, advice: str, strict: bool | None = None) -> Iterator[None]:
        """Turn an ``Exception`` within the context into a warning; ``KeyboardInterrupt`` and the like pass.

        Args:
            task: What was tried; it completes the sentence "LEEPCallback could not ...".
            advice: What the user can do about it, a sentence.
            strict: Overrides the barrier's own setting.
        """
        try:
            yield
        except Exception as error:
            if self.strict if strict is None else strict:
                raise
            if not isinstance(error, OtherProcessError):  # the process with the fault warns
                self.warn(task, f"LEEPCallback could not {task}: {_described(error)} {advice} Training goes on.")

    def warn(self, task: str, message: str) -> None:
        """Warn about a task once, on this process."""
        if task not in self._warned:
            self._warned.add(task)
            warnings.warn(message, UserWarning, stacklevel=4)


def _described(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
