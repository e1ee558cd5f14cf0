"""The preprocessing that belongs to models of timm and transformers."""

from collections.abc import Callable
from functools import cached_property, partial
from importlib import import_module
from typing import Any, NamedTuple

import torch


class Preprocessing(NamedTuple):
    """What is done to an image."""

    key: str  #: the same for two models that take the same images
    transform: Callable[[Any], Any]


class LaterTransform:
    """A transform that is made when it is first used, since its configuration has to be read from a file."""

    def __init__(self, make: Callable[[], Preprocessing]) -> None:
        self.make = make

    @cached_property
    def made(self) -> Preprocessing:
        """What is done to an image."""
        return self.make()

    def __call__(self, image: Any) -> Any:
        """Return what the model takes for an image."""
        return self.made.transform(image)


def timm_transform(name: str, **kwargs: Any) -> Preprocessing:
    """The preprocessing that timm knows for a model, of PIL images."""
    timm, data = require("timm"), import_module("timm.data")
    make = partial(timm.create_model, name, **{**kwargs, "pretrained": False})
    try:
        with torch.device("meta"):  # only its configuration is read
            model = make()
    except (NotImplementedError, RuntimeError):  # it computes with numbers while it is made
        model = make()
    config = data.resolve_data_config({}, model=model)
    return Preprocessing(f"timm {sorted(config.items())}", data.create_transform(**config, is_training=False))


def processor_transform(name: str) -> Preprocessing:
    """The image processor of transformers that belongs to a model."""
    processor = require("transformers").AutoImageProcessor.from_pretrained(name)

    def transform(image: Any) -> dict[str, Any]:
        batch = processor(images=image, return_tensors="pt")  # of one image
        return {key: value[0] for key, value in batch.items()}

    return Preprocessing(f"transformers {processor.to_json_string()}", transform)


def require(module: str) -> Any:
    """Import a module that is an extra of this package; ``ModuleNotFoundError`` if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ModuleNotFoundError(f'{module} is missing: `pip install "lightning-leep[{module}]"`.') from error
