"""Penultimate features of a source model: the input of its last linear layer, taken while the model runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

#: Attributes under which common models keep their classifier's last layer.
HEAD_NAMES = ("fc", "classifier", "head", "linear")


class LayerInput(NamedTuple):
    """What one layer was given: ``[N, d]``, ``[N, ..., d]`` or ``[N, d, ...]``."""

    name: str
    layer: nn.Module
    value: Tensor


class HeadInput:
    """What went into the head when the source last ran.

    Args:
        names: Names of all submodules of the source, the same on every process.
        head: Name of the head that the user asked for; None to find it.
    """

    def __init__(self, names: list[str], head: str | None = None) -> None:
        self.names = names
        self.name: str | None = None  #: of the head that features are taken from; None so far
        self._head = head
        self._common: dict[str, LayerInput] = {}
        self._last: LayerInput | None = None

    @property
    def position(self) -> int:
        """Place of ``name`` among ``names``; -1 while there is none."""
        return -1 if self.name is None else self.names.index(self.name)

    def record(self, name: str, layer: nn.Module, value: Tensor) -> None:
        """Remember the input of a layer that runs."""
        # A linear layer leaves its input alone; another may work in place.
        value = value.detach() if isinstance(layer, nn.Linear) else value.detach().clone()
        self._last = LayerInput(name, layer, value)
        if name in HEAD_NAMES:
            self._common[name] = self._last

    def take(self, preds: Tensor, target: Tensor) -> Tensor | None:
        """Hand over the features if there is one row of them for each label, and forget them.

        Args:
            preds: ``[N, Z]`` or ``[N, Z, d1, ...]``, what the source returned.
            target: ``[N]`` or ``[N, d1, ...]`` labels.

        Returns:
            ``[N, d]`` or ``[N, d, d1, ...]``, a copy: a view would keep alive what it is a view of (all tokens, say),
            and a model may use its memory again. None without a head.

        Raises:
            ValueError: If the user named the head and it did not run, or was given something else.
        """
        head = self._choose(preds.shape[1])
        features = None if head is None else _rows_for_labels(head, target)
        if features is None and self._head is not None:
            found = "did not run" if head is None else f"was given {head.value.dtype} of shape {list(head.value.shape)}"
            raise ValueError(
                f"`head` must name a layer whose input has one row of features for each of the {list(target.shape)} "
                f"labels, but {self._head!r} {found}."
            )
        self._common, self._last = {}, None
        if head is None or features is None or self.name not in (None, head.name):
            return None  # features of another layer than before are none
        self.name = head.name
        return features.clone()

    def _choose(self, num_source_classes: int) -> LayerInput | None:
        if self._head is None:
            for name in HEAD_NAMES:  # one that is not the last to run is the head if it makes the source's outputs
                if name in self._common and self._common[name].layer.out_features == num_source_classes:
                    return self._common[name]
        return self._last


def _rows_for_labels(head: LayerInput, target: Tensor) -> Tensor | None:
    value, is_linear = head.value, isinstance(head.layer, nn.Linear)
    if not value.is_floating_point() or value.ndim != target.ndim + 1:
        return None
    if value.shape[:-1] == target.shape:
        return value.movedim(-1, 1)  # linear layers have their features last: [N, ..., d] -> [N, d, ...]
    # Convolutions have them in dimension 1.
    return value if not is_linear and value.shape[:1] + value.shape[2:] == target.shape else None


@contextmanager
def capture_head_input(module: nn.Module | None, head: str | None = None) -> Iterator[HeadInput]:
    """Record the input of the source's head at every forward pass within the context.

    Args:
        module: The source; None (a plain callable) records nothing.
        head: Name of the head, as in ``module.get_submodule``. When None, it is the linear layer under one of the
            names ``fc``, ``classifier``, ``head`` and ``linear`` that makes as many outputs as the source returns,
            or else the ``nn.Linear`` that runs last.

    Raises:
        ValueError: If ``module`` has no submodule ``head``.
    """
    layers = {} if module is None else dict(module.named_modules())
    linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    if head is not None and head not in layers:
        raise ValueError(f"`head` must name a submodule of the source, got {head!r}. Its linear layers: {linear}.")
    captured = HeadInput(list(layers), head)

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            if given is not None:
                captured.record(name, layer, given)

        return layers[name].register_forward_pre_hook(hook, with_kwargs=True)

    handles: list[Any] = []
    try:
        handles.extend(watch(name) for name in (linear if head is None else [head]))
        yield captured
    finally:
        for handle in handles:
            handle.remove()
