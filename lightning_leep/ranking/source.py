"""A source that may be chosen: its model, how its input is made, and how its output is read."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from lightning_leep.ranking.hub import LaterTransform, processor_transform, require, timm_transform
from lightning_leep.scoring.options import ScoringOptions, SplitBatch, check_options
from lightning_leep.utils.checks import check_real


@dataclass(frozen=True)
class Source:
    """A pre-trained model that may be chosen, and how it is given the target data.

    Args:
        model: The classifier with its original head: a module, a function from inputs to logits, or a factory, which is
            called without arguments and returns one of these. Of factories, one model is in memory at a time.
        transform: Function from the input of one row, such as an image, to what the model takes; None to take it as it
            is. It may return a mapping, whose entries the model gets by name.
        split_batch: Function from a batch to ``(inputs, target)``, in place of the one in ``options``.
        options: What is computed and how outputs are read.
        source_accuracy: Accuracy on the task that the model was trained for, 0..1, shown as a baseline.
        head: Name of the model's last layer, or False for a model without one, in place of the one in ``options``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``source_accuracy`` is outside 0..1, or the options are impossible.
    """

    model: Callable[..., Any]
    transform: Callable[[Any], Any] | None = None
    split_batch: SplitBatch | None = None
    options: ScoringOptions = field(default_factory=ScoringOptions)
    source_accuracy: float | None = None
    head: str | Literal[False] | None = None

    def __post_init__(self) -> None:
        if not callable(self.model):
            raise TypeError(f"`model` must be a module, a function or a factory, got {type(self.model).__name__}.")
        if self.transform is not None and not callable(self.transform):
            raise TypeError(f"`transform` must be a function or None, got {type(self.transform).__name__}.")
        check_options("options", self.options)
        if self.source_accuracy is not None:
            check_real("source_accuracy", self.source_accuracy, 0, 1, missing=False)
        self.scoring_options()

    @classmethod
    def from_timm(cls, name: str, *, source_accuracy: float | None = None, **kwargs: Any) -> "Source":
        """A model of timm by its name, with its pre-trained weights and its own preprocessing of PIL images.

        Args:
            name: Name for ``timm.create_model``, ``local-dir:PATH`` included.
            source_accuracy: See :class:`Source`.
            **kwargs: Passed on to ``timm.create_model``; ``pretrained`` is True unless it is given.

        Raises:
            ModuleNotFoundError: If timm is not installed.
        """
        create = require("timm").create_model
        transform = LaterTransform(partial(timm_transform, name, **kwargs))
        return cls(partial(create, name, **{"pretrained": True, **kwargs}), transform, source_accuracy=source_accuracy)

    @classmethod
    def from_transformers(cls, name: str, *, source_accuracy: float | None = None, **kwargs: Any) -> "Source":
        """An image classifier of transformers by its name on the hub or its folder, with its own image processor.

        Args:
            name: Name or folder for ``AutoModelForImageClassification.from_pretrained``.
            source_accuracy: See :class:`Source`.
            **kwargs: Passed on to ``from_pretrained`` of the model.

        Raises:
            ModuleNotFoundError: If transformers is not installed.
        """
        load = require("transformers").AutoModelForImageClassification.from_pretrained
        transform = LaterTransform(partial(processor_transform, name))
        return cls(partial(load, name, **kwargs), transform, source_accuracy=source_accuracy)

    @property
    def is_factory(self) -> bool:
        """Whether ``model`` can be called without arguments and is not a module itself."""
        if isinstance(self.model, nn.Module):
            return False
        try:
            inspect.signature(self.model).bind()
        except (TypeError, ValueError):
            return False
        return True

    def scoring_options(self) -> ScoringOptions:
        """The options, with ``split_batch`` and ``head`` in their place."""
        given = {"split_batch": self.split_batch, "head": self.head}
        return replace(self.options, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    @contextmanager
    def loaded(self, device: torch.device) -> Iterator[Callable[..., Any]]:
        """The model, for the time of the context if a factory makes it: then on this device."""
        if not self.is_factory:
            yield self.model
            return
        made: Any = self.model()
        if not callable(made):
            raise TypeError(f"the factory must return a module or a function, got {type(made).__name__}.")
        yield made.to(device) if isinstance(made, nn.Module) else made


def as_sources(sources: Any) -> dict[str, Source]:
    """Check a mapping from names to sources, and return each as a ``Source``."""
    if not isinstance(sources, Mapping):
        raise TypeError(f"`sources` must map names to sources, got {type(sources).__name__}.")
    if not sources:
        raise ValueError("`sources` must hold at least one source, got none.")
    for name, source in sources.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"`sources` must map names to sources, got the name {name!r}.")
        if not isinstance(source, Source) and not callable(source):
            raise TypeError(f"`sources[{name!r}]` must be a Source, a module or a function, got {source!r:.100}.")
    return {name: source if isinstance(source, Source) else Source(source) for name, source in sources.items()}
