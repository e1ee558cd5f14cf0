"""Penultimate features of a source model: the input of its last linear layer, taken while the model runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

#: Attributes under which common models keep their classifier's last layer.
HEAD_NAMES = ("fc", "classifier", "head", "linear")


class HeadInput:
    """What went into the head when the source last ran.

    Attributes:
        name: Name of the head within the source; None until a head has run.
        features: ``[N, d]`` or ``[N, d, d1, ...]``; None when no head ran since :meth:`take`.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.features: Tensor | None = None

    def take(self, target: Tensor) -> Tensor | None:
        """Hand over the features if there is one row of them for each label, and forget them."""
        features, self.features = self.features, None
        if features is None or not features.is_floating_point() or features.ndim < 2:
            return None
        if features.ndim == target.ndim + 1 and features.shape[:-1] == target.shape:
            features = features.movedim(-1, 1)  # linear layers keep their features last: [N, ..., d] -> [N, d, ...]
        return features if features.shape[:1] + features.shape[2:] == target.shape else None


@contextmanager
def capture_head_input(module: nn.Module | None, head: str | None = None) -> Iterator[HeadInput]:
    """Record the input of the source's head at every forward pass within the context.

    Args:
        module: The source; None (a plain callable) records nothing.
        head: Name of the head, as in ``module.get_submodule``. When None, it is the linear layer under one of the
            names ``fc``, ``classifier``, ``head`` and ``linear``, or else the ``nn.Linear`` that runs last.

    Raises:
        ValueError: If ``module`` has no submodule ``head``.
    """
    captured = HeadInput()
    handles = []

    def record(name: str) -> None:
        def hook(layer: nn.Module, args: tuple) -> None:
            if args and isinstance(args[0], Tensor):
                captured.name, captured.features = name, args[0].detach()

        handles.append(layers[name].register_forward_pre_hook(hook))

    layers = {} if module is None else dict(module.named_modules())
    if head is not None:
        if head not in layers:
            linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
            raise ValueError(f"`head` must name a submodule of the source, got {head!r}. Its linear layers: {linear}.")
        chosen = [head]
    else:
        chosen = [name for name in HEAD_NAMES if isinstance(layers.get(name), nn.Linear)][:1]
        chosen = chosen or [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    try:
        for name in chosen:
            record(name)
        yield captured
    finally:
        for handle in handles:
            handle.remove()
