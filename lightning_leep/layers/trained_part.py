"""What a fit trains: a new head, all that was transferred, part of it, or more of it as time goes on."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from lightning_leep.layers.transferred import Copies, find_transferred, numbers, whole_copies, within
from lightning_leep.scoring.source import source_module

#: Name of the task for :class:`FaultBarrier`, and what helps.
STRATEGY_TASK = "see what is trained"
STRATEGY_ADVICE = "`strategy=` tells it."
#: From this share of the transferred numbers on, all of them are trained: a fixed table of positions does not matter.
ALL = 0.9


class TrainedPart:
    """The strategy of one fit, a word for what is trained.

    What came from the source is found once, before the first step changes it
    (:func:`~lightning_leep.layers.transferred.find_transferred`); what of it is trained is looked at again each
    epoch. A word that changes on the way, or a callback that unfreezes layers (Lightning's ``BaseFinetuning``), makes
    the strategy "gradual".

    Args:
        given: The user's own word, which stands whatever is found.
    """

    def __init__(self, given: str | None) -> None:
        self.given = given
        self.transferred: tuple[Copies, ...] | None = None
        self.first: str | None = None
        self._changed = False

    @property
    def word(self) -> str:
        """The strategy as far as it is known."""
        return self.given or ("gradual" if self._changed else self.first) or "all"

    def start(self, trainer: Any, pl_module: nn.Module, source: Callable[..., Any] | None) -> None:
        """Find what is trained before the first step; in a run that goes on, see whether that has changed."""
        if self.first is not None:
            self.look(pl_module, source)
            return
        module = pl_module if source is None else source_module(source)
        known = module is not None and module is not pl_module  # else any function of the network may be the source
        self.transferred = find_transferred(pl_module, module) if known and module is not None else ()
        unfreezes = any(is_finetuning(callback) for callback in trainer.callbacks)
        self.first = "gradual" if unfreezes else self._now(pl_module, source)

    def look(self, pl_module: nn.Module, source: Callable[..., Any] | None) -> None:
        """See whether something else is trained than at the start."""
        if self.first not in (None, "gradual") and self._now(pl_module, source) != self.first:
            self._changed = True

    def state_dict(self) -> dict[str, Any]:
        """What was found, as plain values."""
        transferred = None if self.transferred is None else [list(copies) for copies in self.transferred]
        return {"transferred": transferred, "first": self.first, "changed": self._changed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        transferred = state["transferred"]
        self.transferred = None if transferred is None else tuple(tuple(copies) for copies in transferred)
        self.first, self._changed = state["first"], state["changed"]

    def _now(self, pl_module: nn.Module, source: Callable[..., Any] | None) -> str:
        module = None if source is None else source_module(source)
        return strategy_word(pl_module, module if module is not pl_module else None, self.transferred or ())


def strategy_word(network: nn.Module, source: nn.Module | None, transferred: Sequence[Copies]) -> str:
    """What is trained, by ``requires_grad``.

    "head": nothing that was transferred, nor anything inside it, as adapters are (registered before the last of it, in
    the module that holds all of it). "all": nine tenths of its numbers or more. "part": anything between. A tensor is
    trained if one of its copies is.

    Where nothing was transferred as far as can be seen, or only the frozen source stands in the network, it goes by
    size: "head" if there are at least twice as many frozen numbers as trained ones, else "all".

    Args:
        network: The module that is trained.
        source: The source model; None if it is no module of its own.
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
    """The module that holds everything at these paths, empty for the whole network."""
    common = []
    for steps in zip(*paths, strict=False):
        if len(set(steps)) > 1:
            break
        common.append(steps[0])
    return ".".join(common)


def is_finetuning(callback: Any) -> bool:
    """Whether a callback unfreezes layers on the way."""
    # By name, since `pytorch_lightning` and `lightning.pytorch` define the class twice.
    return any(cls.__name__ == "BaseFinetuning" for cls in type(callback).__mro__)
