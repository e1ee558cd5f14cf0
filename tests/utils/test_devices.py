"""A batch of any form goes to a device."""

from collections import namedtuple
from dataclasses import dataclass

import torch

from lightning_leep.utils.devices import move_to_device

META = torch.device("meta")  # a device whose tensors show where they are and hold nothing
Pair = namedtuple("Pair", ["inputs", "target"])


@dataclass
class Sample:
    image: torch.Tensor
    name: str


class Tokens:
    """Moves itself and returns nothing, as people write it."""

    def __init__(self) -> None:
        self.ids = torch.ones(2)

    def to(self, device):
        self.ids = self.ids.to(device)


def test_tensors_are_moved_wherever_they_are_and_the_rest_stays():
    tokens = Tokens()
    batch = Pair({"a": torch.ones(2), "b": [torch.ones(2), "text", 3]}, (Sample(torch.ones(2), "x"), tokens, None))
    moved = move_to_device(batch, META)
    assert isinstance(moved, Pair)
    sample, same, nothing = moved.target
    for tensor in (moved.inputs["a"], moved.inputs["b"][0], sample.image, tokens.ids):
        assert tensor.device == META
    assert moved.inputs["b"][1:] == ["text", 3]
    assert (sample.name, same, nothing) == ("x", tokens, None)
    assert batch.inputs["a"].device.type == "cpu"
    assert move_to_device(batch.inputs["a"], torch.device("cpu")) is batch.inputs["a"]
