"""What one scoring pass found out about one source model and one target data set."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from lightning_leep.records.layers import LayerScore
from lightning_leep.utils.checks import check_real, check_size, check_text

if TYPE_CHECKING:  # plain data: reading a history must not cost an import of torch
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
        leep_standard_error: Standard error of that mean over the rows, with P(y|z) taken as given. From one sample of
            images to the next, each with a P(y|z) of its own, LEEP varies up to twice as much.
        leave_one_out_leep: LEEP with each row predicted from the other rows alone: what is left of it out of sample.
        leave_one_out_leep_standard_error: Standard error of that mean, likewise.
        label_entropy: H(Y), the entropy of the labels; minus it is the LEEP of a source that says nothing.
        eep_accuracy: Accuracy of the expected empirical predictor, on the rows it was made from.
        eep_accuracy_standard_error: Standard error of that mean.
        seconds: Wall time of the scoring pass.
        samples_per_second: Rows of all processes for each second of it.
        leep_low: Lower end of the interval that contains LEEP when only the largest probabilities of each row were
            kept; ``leep`` is an estimate then. None when it is exact.
        leep_high: Upper end of that interval.
        permutation_mean: Mean LEEP with the labels shuffled among the rows; None when the rows were not kept.
        permutation_standard_deviation: Spread of it.
        permutation_p_value: :math:`(1 + \#\{\text{shuffles with at least this LEEP}\}) / (1 + \#\text{shuffles})`.
        nce: Negative conditional entropy -H(Y|Z) of the source's most probable class (Tran et al., ICCV 2019).
        num_features: d, size of the features that the following scores are made from.
        feature_layer: Where they come from.
        rows_per_image: Rows that one image, or one text, gives: 1, or with dense prediction the number of its pixels or
            tokens in the first batch. They are not independent of each other.
        h_score: H-score with Ledoit-Wolf shrinkage (Ibrahim et al., 2021).
        h_score_unshrunk: H-score as first defined (Bao et al., ICIP 2019).
        log_me: LogME, the maximum evidence per row (You et al., ICML 2021).
        nleep: N-LEEP (Li et al., CVPR 2021); None unless asked for.
        linear_probe_accuracy: Leave-one-out accuracy of a linear discriminant on the features: the best single
            prediction of the accuracy after re-training the head.
        linear_probe_accuracy_standard_error: Standard error of that mean.
        linear_probe_log_likelihood: Its leave-one-out log-likelihood.
        linear_probe_samples: Rows it could be asked about: those that are not the only one of their class.
        linear_probe_shrinkage: Weight of the scaled identity in the within-class covariance.
        layers: Scores of the source's layers in the order in which they run; empty if none were asked for or found.
        multi_layer_probe_accuracy: As ``linear_probe_accuracy``, on the features of all layers side by side: the best
            single prediction of the accuracy after fine-tuning all of the source.
        multi_layer_probe_standard_error: Standard error of that mean.
        memory: How the rows were kept.
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
    leep_low: float | None = None
    leep_high: float | None = None
    permutation_mean: float | None = None
    permutation_standard_deviation: float | None = None
    permutation_p_value: float | None = None
    nce: float | None = None
    num_features: int | None = None
    feature_layer: str | None = None
    h_score: float | None = None
    h_score_unshrunk: float | None = None
    log_me: float | None = None
    nleep: float | None = None
    linear_probe_accuracy: float | None = None
    linear_probe_accuracy_standard_error: float | None = None
    linear_probe_log_likelihood: float | None = None
    linear_probe_samples: int | None = None
    linear_probe_shrinkage: float | None = None
    layers: tuple[LayerScore, ...] = ()
    multi_layer_probe_accuracy: float | None = None
    multi_layer_probe_standard_error: float | None = None
    rows_per_image: int = 1
    memory: str | None = None
    notes: tuple[str, ...] = ()
    joint: "Tensor | None" = field(default=None, repr=False, compare=False)

    @property
    def floor(self) -> float:
        """LEEP of a source whose output does not depend on the input, -H(Y)."""
        return -self.label_entropy

    @property
    def leave_one_out_floor(self) -> float:
        r"""The same over the rows that leave-one-out LEEP is a mean of, :math:`\sum n_y \log(n_y/n) / \sum n_y`.

        The sums are over the classes with at least 2 rows. Rows that are the only one of their class are the least
        probable of all, so that without them the floor is higher; NaN when there is no other.
        """
        counts = [count for count in self.class_counts if count > 1]
        if not counts:
            return math.nan
        return sum(count * math.log(count / self.num_samples) for count in counts) / sum(counts)

    def to_dict(self) -> dict[str, Any]:
        """Fields as plain Python values; a number that is not finite becomes None, as JSON has none."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "joint"}
        values["layers"] = [layer.to_dict() for layer in self.layers]
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
    def from_dict(cls, values: Mapping[str, Any]) -> "TransferabilityReport":
        """Inverse of :meth:`to_dict`; None stands for NaN in a field that is a plain float.

        Raises:
            TypeError: If ``values`` are no mapping or a field has the wrong type.
            ValueError: If a field is unknown, a required one is missing, or a value is impossible, see
                :func:`check_report`.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"`values` must be the fields of a TransferabilityReport by name, got {values!r}.")
        known = {f.name: f for f in fields(cls) if f.name != "joint"}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"`values` holds fields that a TransferabilityReport does not have: {unknown}.")
        required = {name for name, f in known.items() if f.default is MISSING}
        if missing := sorted(required - set(values)):
            raise ValueError(f"`values` lacks fields of a TransferabilityReport: {missing}.")
        restored = {name: _restore(known[name].type, value) for name, value in values.items()}
        if isinstance(layers := restored.get("layers"), tuple):
            restored["layers"] = tuple(map(LayerScore.from_dict, layers))
        report = cls(**restored)
        check_report(report)
        return report

    @classmethod
    def from_json(cls, text: str) -> "TransferabilityReport":
        """Inverse of :meth:`to_json`."""
        return cls.from_dict(json.loads(text))


def _restore(kind: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return math.nan if value is None and kind is float else value


# Rounding of rows kept in bfloat16 may take a mean of logarithms of probabilities this far above 0.
_ROUNDING = 0.01
# The logarithm of the least positive float64: no mean of logarithms of probabilities is below it.
_LOG_TINY = -746.0
# What values can be: smallest integer, or smallest and largest number. Those of the other fields are not bounded.
_SMALLEST = {"linear_probe_samples": 0}
_RANGES = {
    **dict.fromkeys(("leep", "leave_one_out_leep", "permutation_mean", "nce"), (_LOG_TINY, _ROUNDING)),
    **dict.fromkeys(("eep_accuracy", "linear_probe_accuracy", "multi_layer_probe_accuracy", "permutation_p_value"), (0, 1)),
    **dict.fromkeys(("label_entropy", "seconds", "samples_per_second"), (0, math.inf)),
}


def check_report(report: TransferabilityReport) -> None:
    """Check the types of a report, and that no value is one that scoring could never give; NaN is a missing number.

    Scoring needs no such check. It is for reports that a file or a user gave, before anything is learned from them.

    Raises:
        TypeError: If it is no report, or a field has the wrong type.
        ValueError: If a score, an accuracy or a size is impossible, or ``class_counts`` do not fit the sizes.
    """
    if not isinstance(report, TransferabilityReport):
        raise TypeError(f"`report` must be a TransferabilityReport, got {report!r}.")
    for f in fields(report):
        value = getattr(report, f.name)
        if f.name == "joint" or (value is None and f.default is None):
            continue
        if f.type in (int, int | None):
            check_size(f.name, value, _SMALLEST.get(f.name, 1))
        elif f.type in (float, float | None):
            check_real(f.name, value, *_RANGES.get(f.name, (-math.inf, math.inf)))
        elif f.type == str | None:
            check_text(f.name, value)
        elif not isinstance(value, tuple):
            raise TypeError(f"`{f.name}` must be a tuple, got {value!r}.")
    for note in report.notes:
        check_text("notes", note)
    for layer in report.layers:
        if not isinstance(layer, LayerScore):
            raise TypeError(f"`layers` must hold LayerScore, got {layer!r}.")
    for count in report.class_counts:
        check_size("class_counts", count, 0)
    if len(report.class_counts) != report.num_target_classes or sum(report.class_counts) != report.num_samples:
        raise ValueError(
            f"`class_counts` must hold one count for each of {report.num_target_classes} classes, "
            f"{report.num_samples} together, got {len(report.class_counts)} that are {sum(report.class_counts)}."
        )
    if report.linear_probe_samples is not None and report.linear_probe_samples > report.num_samples:
        raise ValueError(
            f"`linear_probe_samples` must be at most {report.num_samples}, all rows, got {report.linear_probe_samples}."
        )
    if report.label_entropy > math.log(report.num_target_classes) + _ROUNDING:
        raise ValueError(
            f"`label_entropy` must be at most the logarithm of {report.num_target_classes} classes, "
            f"got {report.label_entropy:g}."
        )
