"""What training does to a batch that scoring leaves out, and what the report says of it."""

from typing import Any

#: Run on each training batch by Lightning. Some mix rows up, which scoring must not; others only normalise them.
BATCH_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")


def skipped_batch_hooks(trainer: Any, pl_module: Any) -> tuple[str, ...]:
    """One note for each hook of the user's that changes training batches and was not run on the scored ones."""
    notes = []
    for name in BATCH_HOOKS:
        # The datamodule's own comes before the module's.
        holder = next((h for h in (trainer.datamodule, pl_module) if _is_overridden(h, name)), None)
        if holder is not None:
            notes.append(
                f"{type(holder).__name__}.{name} does not run on the scored batches. If the source needs what it does "
                "(normalisation, not mix-up), pass `adapter=`, a function from the batch to (inputs, target)."
            )
    return tuple(notes)


def _is_overridden(holder: Any, name: str) -> bool:
    hook = getattr(holder, name, None)
    module = getattr(hook, "__module__", None) or ""
    return hook is not None and module.partition(".")[0] not in ("pytorch_lightning", "lightning")
