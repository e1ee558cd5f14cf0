"""What happens after a fault: one warning and training goes on, or an error."""

import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

from lightning_leep.utils.checks import error_text
from lightning_leep.utils.distributed import OtherProcessError

C = TypeVar("C")
HOOK_ADVICE = "`strict=True` stops with the whole traceback."


class FaultBarrier:
    """Turns faults into warnings, one for each task, or lets them pass if it is ``strict``."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self._warned: dict[str, str] = {}

    def reset(self) -> None:
        """Start to warn anew."""
        self._warned.clear()

    @contextmanager
    def contain(self, task: str, advice: str, strict: bool | None = None) -> Iterator[None]:
        """Turn an ``Exception`` within the context into a warning; ``KeyboardInterrupt`` and the like pass.

        ``task`` completes the sentence "LEEPCallback could not ..."; ``advice``, a sentence, says what the user can do.
        """
        try:
            yield
        except Exception as error:
            if self.strict if strict is None else strict:
                raise
            traceback.clear_frames(error.__traceback__)  # which keep loaders, and so their workers
            if not isinstance(error, OtherProcessError):  # the process with the fault warns
                self.warn(task, f"LEEPCallback could not {task}: {_described(error)} {advice} Training goes on.")

    def warn(self, task: str, message: str) -> None:
        """Warn about a task once, on this process."""
        if task not in self._warned:
            self._warned[task] = message
            warn(message, stacklevel=5)

    def said(self, task: str) -> str:
        """Return what was warned about a task on this process; empty if nothing was."""
        return self._warned.get(task, "")


def warn(message: str, stacklevel: int = 3) -> None:
    """Warn; where warnings are errors, say it in the log instead."""
    try:
        warnings.warn(message, UserWarning, stacklevel=stacklevel)
    except UserWarning:
        logging.getLogger(__name__).warning(message)


def contained_hooks(cls: type[C]) -> type[C]:
    """Have the callback's ``_barrier`` contain the faults of all hooks, a class decorator."""
    for name, hook in vars(cls).copy().items():
        if name.startswith("on_") or name in ("setup", "teardown", "state_dict"):
            setattr(cls, name, _contained(hook))
    return cls


def _contained(hook: Callable[..., Any]) -> Callable[..., Any]:
    # A run that breaks off must show its own error.
    strict = False if hook.__name__ == "on_exception" else None

    @wraps(hook)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._barrier.contain(f"do its part in `{hook.__name__}`", HOOK_ADVICE, strict):
            return hook(self, *args, **kwargs)
        return None

    return run


def _described(error: Exception) -> str:
    text = f"{type(error).__name__}: {error_text(error)}".removesuffix(": ")
    return text if text.endswith((".", "!", "?")) else f"{text}."
