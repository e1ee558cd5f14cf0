"""What a batch holds, and how a source is called with it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

LABEL_KEYS = ("labels", "label", "targets", "target")

SPLIT_BATCH = "Pass `split_batch=`, a function from the batch to (inputs, target)."


def split_pair_or_mapping(batch: Any) -> tuple[Any, Tensor]:
    """Split a pair ``(inputs, target)``, or a mapping with one of the keys ``LABEL_KEYS``, into inputs and labels."""
    if isinstance(batch, Mapping):
        keys = [key for key in LABEL_KEYS if key in batch]
        if len(keys) == 1:
            return {name: value for name, value in batch.items() if name != keys[0]}, batch[keys[0]]
        found = f"a mapping with the keys {sorted(map(str, batch))}"
    elif isinstance(batch, tuple | list):
        if len(batch) == 2:
            return batch[0], batch[1]
        found = f"a {type(batch).__name__} of length {len(batch)}"
    else:
        found = f"a {type(batch).__name__}"
    raise TypeError(
        f"A batch must be a pair (inputs, target) or a mapping with one of {', '.join(LABEL_KEYS)}, got {found}. "
        + SPLIT_BATCH
    )


def call_source(source: Callable[..., Any], inputs: Any) -> Any:
    """Call a source with the inputs of a batch: a mapping by keywords, or as its only entry; else one argument."""
    if not isinstance(inputs, Mapping):
        return source(inputs)
    if _takes(source, inputs):
        return source(**inputs)
    if len(inputs) == 1:
        return call_source(source, next(iter(inputs.values())))
    raise TypeError(f"`source` does not take the entries {sorted(map(str, inputs))} of a batch by name. {SPLIT_BATCH}")


def _takes(source: Callable[..., Any], arguments: Mapping[Any, Any]) -> bool:
    """Whether a source takes these keyword arguments; True if it does not say what it takes."""
    try:
        signature = inspect.signature(source.forward if isinstance(source, nn.Module) else source)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(**arguments)
    except TypeError:
        return False
    return True
