"""What all processes of a scoring pass have in common, learnt from the first batch of any of them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from lightning_leep.records.report_notes import LOGITS
from lightning_leep.scoring.collector import Outputs
from lightning_leep.scoring.head import HeadInput
from lightning_leep.utils.distributed import largest_of_all

#: Widest features that are scored: moments take 8 d^2 bytes, and their eigenvectors d^3 operations.
MAX_FEATURES = 4096
#: Number of rows that no loader has.
UNKNOWN = 2**40
#: ``feature_layer`` when the head is the whole source, a bare linear layer.
WHOLE_SOURCE = "(the source itself)"


class Sizes(NamedTuple):
    """Sizes and the features that are scored."""

    num_source_classes: int
    num_features: int  #: 0 when nothing is narrow enough to be scored
    feature_layer: str | None  #: whose input they are; ``LOGITS`` for the source's outputs, None when there are none
    num_bytes: int | None  #: of the rows and labels of the process that has most; None if unknown
    rows_per_image: int  #: more than 1 with dense prediction

    def choose_features(self, batches: Iterable[Outputs]) -> Iterator[Outputs]:
        """The batches with the features that are scored.

        Raises:
            ValueError: If a batch lacks the features that the others have.
        """
        for preds, features, target in batches:
            if self.feature_layer is None:
                yield preds, None, target
            elif self.feature_layer == LOGITS:
                # A copy, since the source may use its memory again. A class that is switched off (-inf) says nothing.
                yield preds, preds.masked_fill(preds == -torch.inf, 0.0), target
            elif features is None:
                raise ValueError("The head of `source` gave features for one batch and none for another.")
            else:
                yield preds, features, target


def agree_on_sizes(first: Outputs | None, captured: HeadInput, num_batches: int | None, device: torch.device) -> Sizes:
    """Sizes from the first batch of any process.

    Args:
        first: The first batch of this process; None if it has none.
        captured: Tells which layer its features come from.
        num_batches: Of this process, each taken to be of the size of the first; None if unknown.
        device: Of the tensors that are reduced.

    Raises:
        ValueError: If no process has a batch, or they differ.
    """
    if first is None:
        own = [0, -UNKNOWN, 0, -UNKNOWN, 0, -1, 0, 0, 0, 1]
    else:
        preds, features, target = first
        width, size = preds.shape[1], preds.element_size()
        num_features, feature_size = (0, 0) if features is None else (features.shape[1], features.element_size())
        rows = UNKNOWN if num_batches is None else num_batches * target.numel()
        own = [width, -width, num_features, -num_features, int(features is None), captured.position]
        own += [rows, size, feature_size, max(1, target.shape[1:].numel())]
    shared = largest_of_all(own, device)
    width, low, num_features, low_features, lacking, position, rows, size, feature_size, rows_per_image = shared
    if width == 0:
        raise ValueError("`dataloader` must hold at least one batch, got none.")
    if width != -low:
        raise ValueError(f"`source` must return the same number of classes everywhere, got {-low} to {width}.")
    if not lacking and num_features == -low_features and num_features <= MAX_FEATURES:
        layer: str | None = captured.names[position] or WHOLE_SOURCE
    else:
        num_features = width if width <= MAX_FEATURES else 0
        layer, feature_size = (LOGITS, size) if num_features else (None, 0)
    # Rows of probabilities are kept in float32 at least, and the scores of both keep a label of 8 bytes.
    row_bytes = width * max(4, size) + num_features * feature_size + 16
    return Sizes(width, num_features, layer, None if rows == UNKNOWN else rows * row_bytes, rows_per_image)
