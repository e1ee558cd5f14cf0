"""What a scoring pass found out about one layer of the source."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lightning_leep.utils.checks import MAX_SIZE, check_fields, check_keys, check_text

#: Name of what goes into the first block: what a network's stem or embeddings make of the input.
STEM = "stem"
#: Name of what goes into the head.
HEAD_INPUT = "head input"
RANGES = {"probe_accuracy": (0, 1), "probe_standard_error": (0, 1), "num_parameters": (0, MAX_SIZE)}


@dataclass(frozen=True, kw_only=True)
class LayerScore:
    """Scores of one layer's outputs, pooled to one row of features for each image or text.

    All are made from the features that are kept. A score is None where it could not be computed.
    """

    name: str  #: Of the module; "stem" for the input of the first block, "input of NAME" for the input of the head
    width: int  #: Features before projection
    kept_width: int  #: Features after it
    probe_accuracy: float | None = None  #: Leave-one-out accuracy of a linear discriminant on the features
    probe_standard_error: float | None = None  #: Standard error of that mean
    h_score: float | None = None  #: H-score with Ledoit-Wolf shrinkage
    log_me: float | None = None  #: LogME
    feeds_head: bool = False  #: Whether these are the features that go into the source's head
    #: Parameters of the layer and of what is registered between it and the layer before it; None for a layer of a
    #: function or of outputs computed before. Shared ones count where they come first. The head counts in no layer.
    num_parameters: int | None = None

    def __post_init__(self) -> None:
        check_text("name", self.name, empty=False)
        check_fields(self, RANGES, missing=False)
        if self.kept_width > self.width:
            raise ValueError(f"`kept_width` must be at most `width` {self.width}, got {self.kept_width}.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LayerScore":
        """Make it from its fields; ``TypeError`` or ``ValueError`` if a value is missing, unknown or impossible."""
        check_keys("layers", values, {"name", "width", "kept_width"}, {f.name for f in fields(cls)})
        return cls(**values)
