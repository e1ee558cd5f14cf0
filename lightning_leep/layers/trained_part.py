"""What a fit trains: a new head, everything that came from the source, part of it, or more of it as time goes on."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from os.path import commonprefix
from typing import Any

from torch import nn

from lightning_leep.layers.transferred import Copies, find_transferred, whole_copies, within
from lightning_leep.records.layers import HEAD_INPUT, STEM
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.scoring.parameters import layers_of_parameters, numbers
from lightning_leep.scoring.source import source_module
from lightning_leep.utils.checks import check_fields, check_keys, texts

#: From the least to the most that is trained.
WORDS = ("head", "part", "all")
#: From this share of the transferred numbers on, all of them count as trained: a fixed table of positions is no reason
#: to call a fit "part".
ALL = 0.9


@dataclass
class TrainedPart:
    """What one fit trains, as a word.

    What came from the source is found before the first step changes it. What of it is trained is first read off the
    flags ``requires_grad`` and the groups of the optimizers; what has no gradient at the first step (it runs under
    ``no_grad``, say) is not trained. A gradient that first comes later in the first epoch counts from the start: not
    all parts of a network may run in each step. If something else is trained in a later epoch, the word is "gradual".
    """

    transferred: tuple[Copies, ...] | None = None  #: the parameters that came from the source; None before :meth:`look`
    first: str | None = None  #: what is trained at first; None before :meth:`look`
    by_flags: str | None = None  #: the same by flags and optimizers alone, at the first step; None before it
    changed: bool = False  #: whether something else was trained later
    #: Of the parameters that came from the source those that are trained at first, as the source calls them.
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._reached: set[str] = set()  # parameters that have had a gradient
        # The others; None if they must be listed, which takes milliseconds, too long for each step.
        self._waiting: list[tuple[str, nn.Parameter]] | None = None
        self._stepped = self._unfreezes = False
        self._resumes = False  # restored, and nothing was trained since: the module's hooks may not have frozen it yet
        self._epochs = 0
        self._source_names: tuple[str, ...] = ()  # of what was transferred

    @property
    def word(self) -> str:
        """The word as far as it is known."""
        return ("gradual" if self.changed else self.first) or "all"

    @property
    def expected(self) -> str:
        """The word with what a callback is going to unfreeze."""
        return "gradual" if self._unfreezes else self.word

    def see_gradients(self, pl_module: nn.Module) -> bool:
        """Note which parameters have a gradient, before an optimizer makes a step; return whether it is the first."""
        if self._waiting is None:
            self._waiting = list(pl_module.named_parameters(remove_duplicate=False))
        self._reached.update(name for name, parameter in self._waiting if parameter.grad is not None)
        self._waiting = [waiting for waiting in self._waiting if waiting[0] not in self._reached]
        is_first, self._stepped = self.by_flags is None and not self._stepped, True
        self._resumes = False
        return is_first

    def look(self, trainer: Any, pl_module: nn.Module, source: Callable[..., Any] | None) -> None:
        """See what is trained: before the first step, at it, after each epoch, and before a run goes on."""
        self._unfreezes = any(unfreezes(callback, trainer.max_epochs) for callback in trainer.callbacks)
        module = pl_module if source is None else source_module(source)
        if module is pl_module:
            module = None  # any function of the network may be the source unless it is a module of its own
        if self.transferred is None:
            found = {} if module is None else find_transferred(pl_module, module)
            self.transferred, self._source_names = tuple(found), tuple(found.values())
        flagged = trained_parameters(pl_module, trainer.optimizers)
        # Some strategies show no gradients at all.
        moved = flagged & self._reached or flagged
        by_flags, now = (trained_word(pl_module, module, self.transferred, names) for names in (flagged, moved))
        if self.by_flags is None:
            self.first, self.by_flags = now, by_flags if self._stepped or self._epochs else None
            groups = zip(self._source_names, self.transferred, strict=False)
            self.names = tuple(name for name, group in groups if not moved.isdisjoint(group)) or self.names
        elif by_flags != self.by_flags:
            self.changed |= not self._resumes
        elif self._reached and WORDS.index(now) > WORDS.index(self.first or "head"):
            self.first, self.changed = (self.first, True) if self._epochs > 1 else (now, self.changed)

    def first_layer(self, source: Callable[..., Any] | None, report: TransferabilityReport) -> str:
        """Name of the first layer of a report that is trained; empty if that is not known."""
        module, layers = None if source is None else source_module(source), [layer.name for layer in report.layers]
        if module is None or not layers:
            return ""
        modules = dict(module.named_modules(remove_duplicate=False)).keys() - {STEM, HEAD_INPUT}
        found = layers_of_parameters(module, layers, modules, report.feature_layer)
        trained = {found.get(name) for name in self.names}
        return next((layer for layer in layers if layer in trained), "")

    def end_epoch(self) -> None:
        """Note that an epoch is over."""
        self._epochs += 1
        self._resumes = False
        self._waiting = None  # a network may get new layers

    @classmethod
    def from_dict(cls, values: Any) -> "TrainedPart":
        """Make it from its fields; ``TypeError`` or ``ValueError`` for other values."""
        check_keys("trained", values, {f.name for f in fields(cls)})
        part = cls(**values)
        check_fields(part, {}, missing=False)
        for name in ("first", "by_flags"):
            if getattr(part, name) not in (None, *WORDS):
                raise ValueError(f"`{name}` must be one of {', '.join(WORDS)}, got {values[name]!r:.200}.")
        if not isinstance(part.transferred, list | tuple | None):
            raise TypeError(f"`transferred` must hold the names of parameters, got {part.transferred!r:.200}.")
        part.names = texts("names", part.names)
        if part.transferred is not None:
            part.transferred = tuple(texts("transferred", group) for group in part.transferred)
        part._epochs = 0 if part.by_flags is None else 2  # it is not known what had a gradient in the first one
        part._resumes = True
        return part


def trained_parameters(network: nn.Module, optimizers: Sequence[Any]) -> set[str]:
    """Names of the parameters that are to change: with ``requires_grad``, in an optimizer and with a learning rate.

    If the optimizers have none of the network's parameters (a strategy may give them others), the flags alone decide.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    listed = {id(p) for group in groups for p in group["params"]}
    moved = {id(p) for group in groups if _has_rate(group) for p in group["params"]}
    if listed.isdisjoint(map(id, parameters.values())):
        moved = {id(p) for p in parameters.values()}
    return {name for name, p in parameters.items() if p.requires_grad and id(p) in moved}


def _has_rate(group: Mapping[str, Any]) -> bool:
    # The rate that a schedule starts from counts: many begin at 0. An optimizer that finds its rate has None.
    rates = [group.get(name) for name in ("lr", "initial_lr")]
    return all(rate is None for rate in rates) or any(rate is not None and float(rate) != 0 for rate in rates)


def trained_word(network: nn.Module, source: nn.Module | None, transferred: Sequence[Copies], trained: Set[str]) -> str:
    """Name what is trained, given the names of the parameters that are, and what :func:`find_transferred` found before.

    - "head": nothing that was transferred, and nothing inserted into it. Adapters are inserted: they are registered
      before the last transferred parameter, in the module that holds all of them.
    - "all": at least nine tenths of the transferred numbers.
    - "part": anything in between.

    A tensor is trained if one of its copies is. If nothing seems to be transferred, or only the frozen source stands in
    the network, the sizes decide: "head" if at least twice as many numbers are frozen as trained, else "all".
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    if trained >= set(parameters):
        return "all"
    whole = [] if source is None else whole_copies(network, source)
    groups = [present for copies in transferred if (present := [name for name in copies if name in parameters])]
    flags = [not trained.isdisjoint(group) for group in groups]
    beside = all(within(name, whole) for group in groups for name in group)
    if beside and not any(flags):
        moved = numbers({id(parameters[name]): parameters[name] for name in trained}.values())
        return "all" if 3 * moved > numbers(network.parameters()) else "head"  # a third of all: half of the frozen ones
    if not any(flags):
        names = {name for group in groups for name in group if not within(name, whole)}
        return "part" if _trains_inside(list(parameters), names, trained) else "head"
    sizes = [numbers([parameters[group[0]]]) for group in groups]
    share = sum(size for size, flag in zip(sizes, flags, strict=True) if flag) / max(sum(sizes), 1)
    return "all" if share >= ALL else "part"


def _trains_inside(names: Sequence[str], transferred: Set[str], trained: Set[str]) -> bool:
    last = max(names.index(name) for name in transferred)
    # Of lists, not of characters; empty for the whole network.
    container = ".".join(commonprefix([name.split(".")[:-1] for name in transferred]))  # noqa: RUF071
    return any(name in trained and (not container or within(name, [container])) for name in names[:last])


def unfreezes(callback: Any, max_epochs: int | None) -> bool:
    """Whether a callback is going to unfreeze layers: Lightning's ``BaseFinetuning``, if it does something in time."""
    # By name, since `pytorch_lightning` and `lightning.pytorch` define the class twice.
    if not any(cls.__name__ == "BaseFinetuning" for cls in type(callback).__mro__):
        return False
    code = getattr(callback.finetune_function, "__code__", None)
    if code is not None and not code.co_names:
        return False  # a function that names nothing unfreezes nothing
    start = getattr(callback, "unfreeze_backbone_at_epoch", 0)
    return not (max_epochs is not None and 0 <= max_epochs <= start)
