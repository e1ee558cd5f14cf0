"""What a fit trains: a new head, everything that came from the source, part of it, or more of it as time goes on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import nn

from lightning_leep.layers.transferred import Copies, find_transferred, numbers, whole_copies, within
from lightning_leep.scoring.source import source_module

#: From this share of the transferred numbers on, all of them count as trained: a fixed table of positions is no reason
#: to call a fit "part".
ALL = 0.9
#: What a fit may be found to train.
WORDS = ("head", "part", "all", "gradual")


@dataclass
class TrainedPart:
    """What one fit trains, as a word.

    What came from the source is found once, before the first step changes it
    (:func:`~lightning_leep.layers.transferred.find_transferred`). Which of it is trained is looked up again each epoch.
    If the word changes during training, or a callback unfreezes layers (Lightning's ``BaseFinetuning``), it is
    "gradual".

    Attributes:
        transferred: The parameters that came from the source; None before :meth:`start`.
        first: The word at the start of the fit; None before :meth:`start`.
        changed: Whether something else was trained later.
    """

    transferred: tuple[Copies, ...] | None = None
    first: str | None = None
    changed: bool = False

    @property
    def word(self) -> str:
        """The word as far as it is known."""
        return ("gradual" if self.changed else self.first) or "all"

    def start(self, trainer: Any, pl_module: nn.Module, source: Callable[..., Any] | None) -> None:
        """Find what is trained before the first step; in a resumed run, check whether that has changed."""
        if self.first is not None:
            self.look(pl_module, source)
            return
        module = pl_module if source is None else source_module(source)
        # Any function of the network may be the source unless it is a module of its own.
        known = module is not None and module is not pl_module
        self.transferred = find_transferred(pl_module, module) if known and module is not None else ()
        unfreezes = any(is_finetuning(callback) for callback in trainer.callbacks)
        self.first = "gradual" if unfreezes else self._now(pl_module, source)

    def look(self, pl_module: nn.Module, source: Callable[..., Any] | None) -> None:
        """Check whether something else is trained than at the start."""
        if self.first not in (None, "gradual") and self._now(pl_module, source) != self.first:
            self.changed = True

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "TrainedPart":
        """Inverse of :meth:`to_dict`.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If ``values`` is not a mapping of these attributes.
        """
        if not isinstance(values, Mapping) or set(values) != {f.name for f in fields(cls)}:
            raise ValueError(f"`trained` must be a mapping with the attributes of a TrainedPart, got {values!r}.")
        transferred, first, changed = values["transferred"], values["first"], values["changed"]
        if first not in (None, *WORDS):
            raise ValueError(f"`first` must be one of {WORDS} or None, got {first!r}.")
        if not isinstance(changed, bool):
            raise TypeError(f"`changed` must be True or False, got {changed!r}.")
        if transferred is not None:
            groups = transferred if isinstance(transferred, list | tuple) else [None]
            names = [name for group in groups for name in (group if isinstance(group, list | tuple) else [None])]
            if not all(isinstance(name, str) for name in names):
                raise TypeError(f"`transferred` must hold the names of parameters, got {transferred!r:.200}.")
            transferred = tuple(tuple(group) for group in transferred)
        return cls(transferred, first, changed)

    def _now(self, pl_module: nn.Module, source: Callable[..., Any] | None) -> str:
        module = None if source is None else source_module(source)
        return trained_word(pl_module, module if module is not pl_module else None, self.transferred or ())


def trained_word(network: nn.Module, source: nn.Module | None, transferred: Sequence[Copies]) -> str:
    """What is trained, judged by ``requires_grad``.

    - "head": nothing that was transferred, and nothing inserted into it. Adapters are inserted: they are registered
      before the last transferred parameter, in the module that holds all of them.
    - "all": at least nine tenths of the transferred numbers.
    - "part": anything in between.

    A tensor is trained if one of its copies is. If nothing seems to be transferred, or only the frozen source stands in
    the network, the sizes decide: "head" if at least twice as many numbers are frozen as trained, else "all".

    Args:
        network: The module that is trained.
        source: The source model; None if it is not a module of its own.
        transferred: What :func:`~lightning_leep.layers.transferred.find_transferred` found before training.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    if all(p.requires_grad for p in parameters.values()):
        return "all"
    whole = [] if source is None else whole_copies(network, source)
    groups = [present for copies in transferred if (present := [name for name in copies if name in parameters])]
    trained = [any(parameters[name].requires_grad for name in group) for group in groups]
    beside = all(within(name, whole) for group in groups for name in group)
    if beside and not any(trained):
        sizes = {flag: numbers(p for p in network.parameters() if p.requires_grad == flag) for flag in (True, False)}
        return "all" if 2 * sizes[True] > sizes[False] else "head"
    if not any(trained):
        names = {name for group in groups for name in group if not within(name, whole)}
        return "part" if _trains_inside(parameters, names) else "head"
    sizes_of = [numbers([parameters[group[0]]]) for group in groups]
    share = sum(size for size, flag in zip(sizes_of, trained, strict=True) if flag) / max(sum(sizes_of), 1)
    return "all" if share >= ALL else "part"


def _trains_inside(parameters: dict[str, nn.Parameter], transferred: set[str]) -> bool:
    places = {name: place for place, name in enumerate(parameters)}
    last = max(places[name] for name in transferred)
    container = _common([name.split(".")[:-1] for name in transferred])
    return any(
        parameter.requires_grad and places[name] < last and (not container or within(name, [container]))
        for name, parameter in parameters.items()
    )


def _common(paths: Sequence[Sequence[str]]) -> str:
    """The innermost module that holds everything at these paths; empty for the whole network."""
    common = []
    for steps in zip(*paths, strict=False):
        if len(set(steps)) > 1:
            break
        common.append(steps[0])
    return ".".join(common)


def is_finetuning(callback: Any) -> bool:
    """Whether a callback unfreezes layers during training."""
    # By name, since `pytorch_lightning` and `lightning.pytorch` define the class twice.
    return any(cls.__name__ == "BaseFinetuning" for cls in type(callback).__mro__)
