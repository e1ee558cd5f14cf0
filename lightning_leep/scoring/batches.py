"""From a batch of any common form to the source model's inputs, its outputs and the labels."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import getclosurevars, isfunction
from typing import Any

from torch import Tensor, nn

#: Turns a batch into the inputs of the source and the integer labels.
Adapter = Callable[[Any], tuple[Any, Tensor]]


def split_batch(batch: Any) -> tuple[Any, Tensor]:
    """Inputs and labels of a ``(inputs, target)`` pair or of a mapping with ``labels`` (Hugging Face).

    Raises:
        TypeError: If the batch is neither; an ``adapter`` is needed then.
    """
    if isinstance(batch, Mapping):
        if "labels" in batch:
            return {name: value for name, value in batch.items() if name != "labels"}, batch["labels"]
        found = f"a mapping with the keys {sorted(map(str, batch))}"
    elif isinstance(batch, tuple | list):
        if len(batch) == 2:
            return batch[0], batch[1]
        found = f"a {type(batch).__name__} of length {len(batch)}"
    else:
        found = f"a {type(batch).__name__}"
    raise TypeError(
        f"A batch must be a pair (inputs, target) or a mapping with `labels`, got {found}. "
        "Pass `adapter=`, a function from the batch to (inputs, target)."
    )


def source_output(source: Callable[..., Any], inputs: Any) -> Tensor:
    """Output of ``source`` for ``inputs``: a tensor, or the ``logits`` of what it returns.

    A mapping of inputs is passed as keyword arguments, anything else as the one positional argument.

    Raises:
        TypeError: If the source returns neither a tensor nor something with ``logits``.
    """
    output = source(**inputs) if isinstance(inputs, Mapping) else source(inputs)
    if isinstance(output, Mapping):
        output = output.get("logits", output)
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor):
        raise TypeError(
            "`source` must return a tensor or something with `logits`, a tensor; "
            f"got {type(output).__name__}. Wrap it in a function that returns the classifier's output."
        )
    return output


def source_module(source: Callable[..., Any]) -> nn.Module | None:
    """The module behind a source: itself, or the one that it is a bound method of; None for any other callable."""
    module = source if isinstance(source, nn.Module) else getattr(source, "__self__", None)
    return module if isinstance(module, nn.Module) else None


def modules_behind(source: Callable[..., Any]) -> list[nn.Module]:
    """The modules that a source shows: itself, or what a function, a ``partial`` or another object names or holds."""
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
