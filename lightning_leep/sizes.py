"""What all processes of a scoring pass have in common, learnt from the first batch of any of them."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

from lightning_leep.collector import Outputs
from lightning_leep.notes import LOGITS
from lightning_leep.processes import largest_of_all

#: Widest features that are scored: moments take 8 d^2 bytes, and their eigenvectors d^3 operations.
MAX_FEATURES = 4096
UNKNOWN = 2**40


class Sizes(NamedTuple):
    """Sizes and the features that are scored."""

    num_source_classes: int
    num_features: int  #: 0 when nothing is narrow enough to be scored
    from_head: bool  #: whether the features are the input of the head; otherwise they are the source's outputs
    num_bytes: int | None  #: of the rows of the process that has most, in float32; None if unknown

    def choose_features(self, batches: Iterable[Outputs]) -> Iterator[Outputs]:
        """The batches with the features that are scored.

        Raises:
            ValueError: If a batch lacks the features that the others have.
        """
        for preds, features, target in batches:
            if self.from_head and features is None:
                raise ValueError("The head of `source` gave features for one batch and none for another.")
            yield preds, (features if self.from_head else preds) if self.num_features else None, target

    def feature_layer(self, head: str | None) -> str | None:
        """Name of the layer whose input the features are; ``LOGITS`` for the outputs, None when there are none."""
        if not self.num_features:
            return None
        return head if self.from_head and head is not None else LOGITS


def agree_on_sizes(first: Outputs | None, num_batches: int | None, device: torch.device) -> Sizes:
    """Sizes from the first batch of any process.

    Raises:
        ValueError: If no process has a batch, or they differ.
    """
    if first is None:
        own = [0, -UNKNOWN, 0, -UNKNOWN, 0, 0]
    else:
        preds, features, target = first
        width, num_features = preds.shape[1], 0 if features is None else features.shape[1]
        rows = UNKNOWN if num_batches is None else num_batches * target.numel()
        own = [width, -width, num_features, -num_features, int(features is None), rows]
    width, low, num_features, low_features, lacking, rows = largest_of_all(own, device)
    if width == 0:
        raise ValueError("`dataloader` must hold at least one batch, got none.")
    if width != -low:
        raise ValueError(f"`source` must return the same number of classes everywhere, got {-low} to {width}.")
    from_head = not lacking and num_features == -low_features and num_features <= MAX_FEATURES
    num_features = num_features if from_head else width if width <= MAX_FEATURES else 0
    num_bytes = None if rows == UNKNOWN else 4 * rows * (width + num_features)
    return Sizes(width, num_features, from_head, num_bytes)


def len_or_none(dataloader: Iterable[Any]) -> int | None:
    """Number of batches, where it is known."""
    try:
        return len(dataloader)  # type: ignore[arg-type]
    except TypeError:
        return None
