"""Penultimate features of a source model: the input of its last layer, taken while the model runs."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_leep.scoring.answer import rows_of_answer, rows_of_several_heads
from lightning_leep.scoring.pooling import layout_of, pool

#: Last parts of the names under which common models keep their classifier or its last layer.
HEAD_NAMES = ("fc", "classifier", "head", "linear")
#: Standard deviation with which timm and transformers draw the weights of a new head.
NEW_SPREAD = 0.02
#: Runs of linear layers of one width that are remembered of a batch: one for each head, or for each view of an image.
RUNS_KEPT = 4


@dataclass(eq=False)
class LayerRun:
    """What one layer was given, ``[N, d]``, ``[N, ..., d]`` or ``[N, d, ...]``, and what it returned."""

    name: str
    layer: nn.Module
    value: Tensor
    output: Tensor | None = None


class HeadInput:
    """What went into the head when the source last ran. ``head`` is the name that the user gave; None to find it."""

    def __init__(self, layers: Mapping[str, nn.Module], head: str | None = None) -> None:
        self.layers = dict(layers)
        self.name: str | None = None  #: of the head that features came from; None before the first ones
        self.headless = ""  #: name of a head that is nn.Identity, whose output the source returned
        self.common = {} if head is not None else _common_layers(self.layers)  #: by the last part of their names
        self._head = head
        self._forget()

    def _forget(self) -> None:
        self._runs: Counter[str] = Counter()
        self._sizes: dict[str, tuple[int, ...]] = {}  # of each output, those that may be the number of classes
        self._common: dict[str, LayerRun] = {}
        self._last: LayerRun | None = None  # of the linear layers or, if the user named a head, of that one
        # Of linear layers that were given one row for each image, by their width. Tokens of all layers would fill the
        # memory.
        self._recent: dict[int, deque[LayerRun]] = defaultdict(lambda: deque(maxlen=RUNS_KEPT))

    def record_input(self, name: str, value: Tensor) -> None:
        """Remember the input of a layer that runs."""
        layer = self.layers[name]
        # A linear layer does not change its input; another layer may work in place.
        value = value.detach() if isinstance(layer, nn.Linear) else value.detach().clone()
        run = LayerRun(name, layer, value)
        self._runs[name] += 1
        if name in self.common.values():
            self._common[name] = run
        if isinstance(layer, nn.Linear):
            self._sizes[name] = (layer.out_features,)
            if value.ndim == 2:
                self._recent[layer.out_features].append(run)
        if self._head is not None or isinstance(layer, nn.Linear):
            self._last = run

    def record_output(self, name: str, value: Tensor) -> None:
        """Remember an output ``[N, Z, ...]`` or ``[N, ..., Z]``, and its sizes that may be the number of classes."""
        if not isinstance(self.layers[name], nn.Linear):
            self._sizes[name] = (value.shape[1], value.shape[-1]) if value.ndim > 1 else ()
        for run in self._known_runs(name)[-1:]:
            run.output = value.detach()

    def _known_runs(self, name: str) -> list[LayerRun]:
        """The runs of a layer that are remembered, in their order."""
        recent = [run for runs in self._recent.values() for run in runs if run.name == name]
        latest = self._common.get(name) or (self._last if self._last is not None and self._last.name == name else None)
        return recent if latest is None or latest in recent else [*recent, latest]

    def take(self, preds: Tensor, target: Tensor) -> Tensor | None:
        """Return the features ``[N, d]`` or ``[N, d, d1, ...]`` if they have one row for each label, and forget them.

        A head that runs on every token, or several times, has its features where its output is what the source
        returned. Those of several heads, whose outputs the source adds or averages, stand side by side. None if no head
        is known to make the outputs; ``ValueError`` if that is one that the user named.
        """
        for run in self._common.values():
            if isinstance(run.layer, nn.Identity) and run.output is not None and torch.equal(run.output, preds):
                self.headless = run.name
        name, features = self._find(preds, target)
        if features is None and self._head is not None:
            runs, known = self._runs[self._head], self._last
            if known is None:
                found = "did not run (if torch.compile compiled the source and it ran before, nothing in it is seen)"
            elif runs > 1:
                found = f"ran {runs} times for one batch"
            else:
                found = f"was given {known.value.dtype} of shape {list(known.value.shape)}"
            raise ValueError(
                f"`head` must name a layer whose input has one row of features for each of the {list(target.shape)} "
                f"labels, but {self._head!r} {found}."
            )
        self._forget()
        if features is None or self.name not in (None, name):
            return None  # features of another layer than before do not count
        self.name = name
        return features.clone()  # a view would keep all tokens alive, and a model may use the memory again

    def _find(self, preds: Tensor, target: Tensor) -> tuple[str, Tensor | None]:
        """Return the name of the head, or of several, and the features."""
        if self._head is None:
            several = list(self._recent.get(preds.shape[1], ()))
            features = rows_of_several_heads([(run.value, run.output) for run in several], preds)
            if features is not None:
                names = list(dict.fromkeys(run.name for run in several))
                if len(names) == 1:  # one head on several views of an image: their mean goes through it as well
                    features = features.unflatten(1, (len(several), -1)).mean(dim=1)  # [N, k d] -> [N, d]
                return " + ".join(names), features
        head = self._last if self._head is not None else self._choose(preds.shape[1])
        if head is None:
            return "", None
        features = _rows_for_labels(head, target) if self._runs[head.name] == 1 else None
        for run in reversed(self._known_runs(head.name)):
            if features is None and run.output is not None:
                features = rows_of_answer(run.value, run.output, preds)
        if features is None and self._head is not None and self._runs[head.name] == 1 and target.ndim == 1:
            with suppress(ValueError):  # no pooling fits
                features = pool(head.value, layout_of(head.layer), len(target)).mean
        return head.name, features

    def _choose(self, num_source_classes: int) -> LayerRun | None:
        """Return the layer that makes the source's outputs; None if names and sizes do not tell."""
        common = [run for run in self._common.values() if num_source_classes in self._sizes.get(run.name, ())]
        linear = [run for run in common if isinstance(run.layer, nn.Linear)]
        if linear:
            return linear[-1]  # to run
        block = common[-1] if common else None
        last = self._last
        if last is None or num_source_classes not in self._sizes.get(last.name, ()) or self._is_adapter(last.name):
            return block
        # A linear layer elsewhere, such as a gate, does not stand for a classifier that is not linear.
        return last if block is None or last.name.startswith(f"{block.name}.") else block

    def _is_adapter(self, name: str) -> bool:
        """Whether another linear layer of the same block has as many outputs, to be added to these (LoRA)."""
        block = name.rpartition(".")[0]
        while block and isinstance(self.layers[block], nn.ModuleDict | nn.ModuleList):  # these never run themselves
            block = block.rpartition(".")[0]
        if isinstance(self.layers[block], nn.Sequential):
            return False  # its layers run one after the other
        return any(  # the source as a whole does not count as a block: its layers mostly run one after the other
            other != name and other.startswith(f"{block}.") and sizes == self._sizes[name]
            for other, sizes in self._sizes.items()
            if isinstance(self.layers[other], nn.Linear)
        )


def _common_layers(layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return the module of each common name: the least deep one and, of several, the last."""
    found: dict[str, str] = {}
    for name in layers:
        part = name.rpartition(".")[2]
        if part in HEAD_NAMES and (part not in found or name.count(".") <= found[part].count(".")):
            found[part] = name
    return found


def _rows_for_labels(head: LayerRun, target: Tensor) -> Tensor | None:
    value, is_linear = head.value, isinstance(head.layer, nn.Linear)
    if not is_linear:
        while value.ndim > target.ndim + 1 and value.shape[-1] == 1:
            value = value.squeeze(-1)  # pooled for a 1 x 1 convolution: [N, d, 1, 1] -> [N, d]
    if not value.is_floating_point() or value.ndim != target.ndim + 1:
        return None
    # Convolutions have their features in dimension 1, linear layers in the last one, other layers in either.
    if not isinstance(head.layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and value.shape[:-1] == target.shape:
        return value.movedim(-1, 1)  # [N, ..., d] -> [N, d, ...]
    return value if not is_linear and value.shape[:1] + value.shape[2:] == target.shape else None


def looks_new(head: nn.Module | None) -> str:
    """Why a linear layer looks as if it was never trained, as a clause; empty if it does not, or is not linear.

    ``nn.Linear`` draws weights and bias uniformly from -1/sqrt(d) to 1/sqrt(d), which training soon leaves. Other
    initialisations (timm, Hugging Face) set the bias to 0, where training does not leave it, and draw the weights from
    a normal distribution with standard deviation 0.02: that is how a head without a bias is told.
    """
    if not isinstance(head, nn.Linear) or isinstance(head.weight, nn.UninitializedParameter):
        return ""
    weight, bias = head.weight.detach().double(), head.bias
    bound = head.in_features**-0.5
    if bias is not None and head.out_features > 1 and not bool(bias.any()):
        return "its bias is exactly 0"
    # The largest of m uniform numbers falls short of the bound by about 1/m of it, their spread by less than 2/sqrt(m).
    count = weight.numel()
    largest, spread = float(weight.abs().max()), float(weight.square().mean().sqrt())
    if 1 - 10 / count <= largest / bound <= 1 + 1e-3 and abs(spread / bound * 3**0.5 - 1) < 2 / count**0.5:
        return "its weights are spread as PyTorch draws those of a new layer"
    # Standard errors of a normal sample: of its spread 1/sqrt(2m), of its fourth moment over spread^4 sqrt(24/m).
    fourth = float(weight.pow(4).mean()) / max(spread, 1e-12) ** 4
    is_normal = abs(spread / NEW_SPREAD - 1) < 3 / (2 * count) ** 0.5 and abs(fourth - 3) < 3 * (24 / count) ** 0.5
    if bias is None and is_normal:
        return f"its weights are spread as a new layer's, with standard deviation {NEW_SPREAD}"
    return ""


@contextmanager
def capture_head_input(module: nn.Module | None, head: str | None = None) -> Iterator[HeadInput]:
    """Record the input of the source's head at every forward pass within the context; of a plain callable nothing.

    Without ``head``, a name as in ``module.get_submodule``, it is the first with as many outputs as the source of

    1. the linear layer with a name of ``HEAD_NAMES``: the least deep one of each, and of these the last to run;
    2. the linear layer that runs last, inside the module with such a name if that has as many outputs too;
    3. the module with such a name, whatever its type: a convolution, or a linear layer with a LoRA adapter.
    """
    # A module may have several names, and a user may give any of them.
    named = () if module is None else module.named_modules(remove_duplicate=head is None)
    layers = {name: layer for name, layer in named if not isinstance(layer, torch.jit.ScriptModule)}  # takes no hooks
    linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    if head is not None and head not in layers:
        raise ValueError(f"`head` must name a submodule of the source, got {head!r}. Its linear layers: {linear}.")
    captured = HeadInput(layers, head)

    def given(name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if value is not None:
            captured.record_input(name, value)

    def returned(name: str, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            captured.record_output(name, output)

    blocks = [name for name in captured.common.values() if name not in linear]
    handles: list[Any] = []
    try:
        for name in [*linear, *blocks] if head is None else [head]:
            handles.append(layers[name].register_forward_pre_hook(partial(given, name), with_kwargs=True))
            handles.append(layers[name].register_forward_hook(partial(returned, name)))
        yield captured
    finally:
        for handle in handles:
            handle.remove()
