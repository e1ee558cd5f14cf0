"""What one scoring pass found out about one source model and one target data set."""

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TransferabilityReport:
    r"""Scores of a source model on target data, frozen and JSON-serialisable.

    Scores are in nats, accuracies in 0..1, times in seconds.

    Attributes:
        num_samples: Rows that were scored, n.
        num_target_classes: C.
        num_source_classes: Z.
        class_counts: Rows of each target class.
        leep: LEEP, :math:`\frac1n \sum_i \log \sum_z P(y_i|z) \theta_i(z)` (Nguyen et al., ICML 2020).
        leep_standard_error: Standard error of that mean.
        leave_one_out_leep: LEEP with each row predicted from the other rows alone: what is left of it out of sample.
        leave_one_out_leep_standard_error: Standard error of that mean.
        label_entropy: H(Y), the entropy of the labels; minus it is the LEEP of a source that says nothing.
        eep_accuracy: Accuracy of the expected empirical predictor, on the rows it was made from.
        eep_accuracy_standard_error: Standard error of that mean.
        seconds: Wall time of the scoring pass.
        samples_per_second: Rows of all processes for each second of it.
        notes: What a reader has to know to believe the numbers, one sentence each.
        joint: Sum of source distributions for each target class, ``[C, Z]``. It is kept out of the JSON form.
    """

    num_samples: int
    num_target_classes: int
    num_source_classes: int
    class_counts: tuple[int, ...]
    leep: float
    leep_standard_error: float
    leave_one_out_leep: float
    leave_one_out_leep_standard_error: float
    label_entropy: float
    eep_accuracy: float
    eep_accuracy_standard_error: float
    seconds: float
    samples_per_second: float
    notes: tuple[str, ...] = ()
    joint: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def floor(self) -> float:
        """LEEP of a source whose output does not depend on the input, -H(Y)."""
        return -self.label_entropy

    def to_dict(self) -> dict[str, Any]:
        """Fields as plain Python values; a number that is not finite becomes None, as JSON has none."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "joint"}
        return {
            name: None
            if isinstance(value, float) and not math.isfinite(value)
            else list(value)
            if isinstance(value, tuple)
            else value
            for name, value in values.items()
        }

    def scalars(self) -> dict[str, float]:
        """Every field that is a single finite number, by name: what a logger can draw."""
        return {
            name: float(value)
            for name, value in self.to_dict().items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }

    def to_json(self) -> str:
        """The fields as a JSON object."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TransferabilityReport":
        """Inverse of :meth:`to_dict`; None stands for NaN in a field that is a plain float.

        Raises:
            ValueError: If a field is unknown or a required one is missing.
        """
        known = {f.name: f for f in fields(cls) if f.name != "joint"}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"`values` holds fields that a TransferabilityReport does not have: {unknown}.")
        try:
            return cls(**{name: _restore(known[name].type, value) for name, value in values.items()})
        except TypeError as error:
            raise ValueError(f"`values` lacks fields of a TransferabilityReport: {error}.") from error

    @classmethod
    def from_json(cls, text: str) -> "TransferabilityReport":
        """Inverse of :meth:`to_json`."""
        return cls.from_dict(json.loads(text))


def _restore(kind: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return math.nan if value is None and kind is float else value
