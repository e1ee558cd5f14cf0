"""Reading what a source returns: which tensor holds its outputs, where their classes are, and what they look like."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.inputs import HALF_SUM_TOLERANCE, SUM_TOLERANCE, check_layout

CLASS_INDICES = (
    "Soft labels, several labels for a row and regression targets have no LEEP: turn them into class indices, as a "
    "function `split_batch=` from the batch to (inputs, target) may do."
)
#: Largest number of classes that labels alone may show: a joint of 10,000 by 1,000 takes 80 MB.
MAX_FOUND_CLASSES = 10_000
#: What models without a head call their features (Hugging Face), the first one found.
EMBEDDINGS = ("image_embeds", "pooler_output")


class OutputReader:
    """Brings what a source returns to ``[N, Z, d1, ...]``, in the same way for all batches of a pass.

    The classes are in dimension ``class_dim`` or, if that is None, in dimension 1 or the last one, as the labels tell.
    Where they cannot (``[N, T, T]``), an earlier batch may have told; else ``.logits`` of three dimensions has them
    last, and of more in dimension 1, as Hugging Face's models of tokens and of pixels do.
    """

    def __init__(self, class_dim: int | None = None) -> None:
        self.class_dim = class_dim
        self.single = False  #: whether the source has one output
        self._found: int | None = None  # by the latest batch whose shapes tell

    def read(self, output: Any, target: Any) -> Tensor:
        """Return the outputs as ``[N, Z, d1, ...]``. A single output may lack its dimension: ``[N]``, ``[N, H, W]``."""
        value, named = _find_tensor(output)
        check_target(target)
        if isinstance(target, Tensor):
            if value.ndim in (1, 3) and value.shape == target.shape:
                value = value.unsqueeze(1)  # [N, ...] -> [N, 1, ...]
            elif value.ndim > 2:
                value = value.movedim(self._find_class_dim(value, target, named), 1)
            elif target.ndim == 2 and self.class_dim is None:
                raise ValueError(
                    f"`target` must have one label for each row of the outputs {list(value.shape)}, got shape "
                    f"{list(target.shape)}. {CLASS_INDICES}"
                )
        check_layout(value, target, None)
        self.single = value.shape[1] == 1
        return value

    def read_embedding(self, output: Any, target: Any) -> Tensor:
        """Return the features ``[N, d, d1, ...]`` that a source without a head returns."""
        for name in EMBEDDINGS:
            output = output.get(name, output) if isinstance(output, Mapping) else getattr(output, name, output)
        if not isinstance(output, Tensor):
            output = _only_tensor(output)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"With `head=False`, `source` must return a tensor or something with {' or '.join(EMBEDDINGS)}; "
                f"got {_described(output)}. Wrap it in a function that returns features [N, d]."
            )
        check_target(target)
        return self.read_features(output, target)

    def read_features(self, value: Tensor, target: Tensor) -> Tensor:
        """Return features beside the outputs as ``[N, d, d1, ...]``; their shapes tell, or else the outputs' told."""
        if value.ndim > 2:
            value = value.movedim(self._find_class_dim(value, target, False), 1)
        check_layout(value, target, None, name="features")
        return value

    def _find_class_dim(self, value: Tensor, target: Tensor, named: bool) -> int:
        shape, wanted = value.shape, target.shape
        if self.class_dim is not None:
            if not -value.ndim < self.class_dim < value.ndim or self.class_dim == 0:
                raise ValueError(f"`class_dim` is {self.class_dim}, but the outputs have shape {list(shape)}.")
            return self.class_dim
        second, last = shape[:1] + shape[2:] == wanted, shape[:-1] == wanted
        if second != last:
            self._found = 1 if second else -1
        elif second and self._found is None:
            if not named:
                raise ValueError(
                    f"Outputs of shape {list(shape)} for labels of shape {list(wanted)} do not tell which dimension "
                    "holds the classes. Pass `class_dim=1` or `class_dim=-1`."
                )
            return -1 if value.ndim == 3 else 1
        elif not second:
            raise ValueError(_misfit(value, target))
        return self._found or 1


def _find_tensor(output: Any) -> tuple[Tensor, bool]:
    """Return the outputs, and whether they came as ``logits`` (Hugging Face)."""
    # torchvision's segmentation models call them "out".
    if isinstance(output, Mapping):
        output = output if "logits" in output else output.get("out", output)
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits, True
    output = _only_tensor(output)
    if isinstance(output, Tensor):
        return output, False
    raise TypeError(
        "`source` must return a tensor, something with `logits`, a tensor, or a tuple with one tensor; "
        f"got {_described(output)}. Wrap it in a function that returns the classifier's output; if it has no "
        "head and returns features, pass `head=False`."
    )


def _only_tensor(output: Any) -> Any:
    """Return the tensor of a tuple or list with one; anything else as it is."""
    tensors = [value for value in output if isinstance(value, Tensor)] if isinstance(output, tuple | list) else []
    return tensors[0] if len(tensors) == 1 else output


def check_target(target: Any) -> None:
    """Raise ``TypeError`` if a tensor of labels does not hold integers."""
    if isinstance(target, Tensor) and (
        target.dtype.is_floating_point or target.dtype == torch.bool or target.is_complex()
    ):
        raise TypeError(
            f"`target` must hold integer class labels, got {target.dtype} of shape {list(target.shape)}. "
            + CLASS_INDICES
        )


def count_classes(targets: Iterable[Tensor], ignore_index: int | None) -> int:
    """Return the number of classes in the labels of a pass: the largest one plus 1, or 0 without any."""
    largest = -1
    for target in targets:
        check_target(target)
        if ignore_index is not None:
            target = target[target != ignore_index]
        largest = max(largest, int(target.max()) if target.numel() else -1)
        if largest >= MAX_FOUND_CLASSES:
            raise ValueError(
                f"Labels up to {largest} are too large to find the number of classes from them. Pass "
                "`num_target_classes=`, and `ignore_index=` for a label to be left out."
            )
    return largest + 1


def _described(output: Any) -> str:
    name = type(output).__name__
    if isinstance(output, Mapping):
        return f"{name} with the keys {sorted(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"{name} of {', '.join(type(value).__name__ for value in output)}"
    return name


def _misfit(value: Tensor, target: Tensor) -> str:
    outputs, labels = list(value.shape), list(target.shape)
    if value.ndim == target.ndim + 1 and value.ndim > 3 and outputs[0] == labels[0]:
        return (
            f"`source` returns maps of {' x '.join(map(str, outputs[2:]))} for labels of "
            f"{' x '.join(map(str, labels[1:]))}. Wrap it in a function that resizes its outputs to the labels "
            "(torch.nn.functional.interpolate), or resize the labels."
        )
    return (
        f"`target` must have one label for each row of the outputs, got shape {labels} for outputs of shape {outputs}."
    )


def two_classes(single: Tensor, from_logits: bool) -> Tensor:
    """Outputs ``[N, 2, ...]`` of the two classes behind one output ``[N, 1, ...]``: 0 and the logit, or 1 - p and p."""
    return torch.cat([torch.zeros_like(single) if from_logits else 1 - single, single], dim=1)


class ValuesSeen:
    """Whether all outputs that were read as logits look like what a softmax or a sigmoid returns."""

    def __init__(self) -> None:
        self.batches = self.outside = self.not_one = 0  #: with values outside 0..1; with a row whose sum is not 1

    def add(self, preds: Tensor) -> None:
        """Look at one batch ``[N, Z, ...]``. After one that holds other values, nothing is read any more."""
        if not preds.numel() or self.outside:
            return
        low, high = torch.aminmax(preds)
        tolerance = HALF_SUM_TOLERANCE if preds.dtype.itemsize < 4 else SUM_TOLERANCE
        self.batches += 1
        self.outside += not (float(low) >= 0 and float(high) <= 1 + SUM_TOLERANCE)
        self.not_one += not ((preds.float().sum(dim=1) - 1).abs() <= tolerance).all()

    def remarks(self, reduce: Callable[[Tensor], Tensor], device: torch.device, single: bool) -> list[str]:
        """What the batches of all processes show, as sentences; ``single`` if two classes are made of one output."""
        seen = torch.tensor([self.batches, self.outside, self.not_one], device=device)
        batches, outside, not_one = reduce(seen).tolist()
        if not batches or outside:
            return []
        read = "was read as logits (`from_logits=True`), so LEEP and all scores of the outputs are wrong."
        if not not_one:
            return [
                f"Every row of outputs is non-negative and sums to 1, as probabilities do, but {read} Pass "
                "`from_logits=False`, or a source that returns logits."
            ]
        cure = "`from_logits=False`, or a source that returns logits" if single else "a source that returns logits"
        return [f"Every output is between 0 and 1, as a sigmoid returns it, but {read} Pass {cure}."]
