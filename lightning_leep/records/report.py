"""The result of one scoring pass: scores of one source model on one target data set."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from lightning_leep.records.layers import LayerScore
from lightning_leep.records.report_text import description, summary
from lightning_leep.records.row_outcomes import RowOutcomes
from lightning_leep.utils.checks import MAX_SIZE, Ranges, check_fields, check_real, check_size, plain, texts

if TYPE_CHECKING:  # plain data: reading a history must not cost an import of torch
    from torch import Tensor
#: Fields that a report of a source without a head lacks.
_SCORES = "leep", "leave_one_out_leep", "eep_accuracy"
OUTPUT_SCORES = ("num_source_classes", *_SCORES, *(f"{name}_standard_error" for name in _SCORES))
#: Fields that hold outcomes of single rows.
ROW_FIELDS = ("linear_probe_rows", "multi_layer_probe_rows")


@dataclass(frozen=True, kw_only=True)
class TransferabilityReport:
    r"""Scores of a source model on target data. It is immutable and can be saved as JSON.

    Scores are in nats, accuracies in 0..1, times in seconds.
    """

    num_samples: int  #: Number of scored rows n
    num_target_classes: int  #: Number of target classes C
    #: Number of source classes Z. None for a source without a head, a source of features alone; so are all scores of
    #: its outputs: ``leep``, ``leave_one_out_leep``, ``eep_accuracy``, ``nce`` and what belongs to them.
    num_source_classes: int | None
    class_counts: tuple[int, ...]  #: Rows of each target class
    leep: float | None  #: LEEP, :math:`\frac1n \sum_i \log \sum_z P(y_i|z) \theta_i(z)` (Nguyen et al., ICML 2020)
    #: Standard error of that mean over the rows, with P(y|z) taken as given. Between samples of images, each with its
    #: own P(y|z), LEEP varies up to twice as much.
    leep_standard_error: float | None
    leave_one_out_leep: float | None  #: LEEP with each row predicted from the other rows only: its out-of-sample value
    leave_one_out_leep_standard_error: float | None  #: Standard error of that mean, with P(y|z) taken as given
    label_entropy: float  #: Entropy of the labels H(Y). A source whose output says nothing has LEEP -H(Y)
    eep_accuracy: float | None  #: Accuracy of the expected empirical predictor, on the rows that it was computed from
    eep_accuracy_standard_error: float | None  #: Standard error of that mean
    seconds: float  #: Wall time of the scoring pass
    samples_per_second: float  #: Rows of all processes per second
    permutation_mean: float | None = None  #: Mean LEEP with shuffled labels; None when the rows were not kept
    permutation_standard_deviation: float | None = None  #: Standard deviation of LEEP with shuffled labels
    #: :math:`(1 + \#\{\text{shuffles with at least this LEEP}\}) / (1 + \#\text{shuffles})`.
    permutation_p_value: float | None = None
    #: Negative conditional entropy -H(Y|Z) of the source's most probable class (Tran et al., ICCV 2019).
    nce: float | None = None
    num_features: int | None = None  #: Size d of the features; all scores below are computed from features
    feature_layer: str | None = None  #: Name of the layer that the features come from
    h_score: float | None = None  #: H-score with Ledoit-Wolf shrinkage (Ibrahim et al., 2021)
    h_score_unshrunk: float | None = None  #: H-score as first defined (Bao et al., ICIP 2019)
    log_me: float | None = None  #: LogME, the maximum evidence per row (You et al., ICML 2021)
    nleep: float | None = None  #: N-LEEP (Li et al., CVPR 2021); None unless requested
    #: Leave-one-out accuracy of a linear discriminant on the features: the best single predictor of the accuracy of a
    #: re-trained head.
    linear_probe_accuracy: float | None = None
    linear_probe_accuracy_standard_error: float | None = None  #: Standard error of that mean
    #: Mean of ``linear_probe_class_accuracy`` over the classes that have one.
    linear_probe_balanced_accuracy: float | None = None
    #: Leave-one-out accuracy on the rows of each class; None for a class with fewer than 2 rows.
    linear_probe_class_accuracy: tuple[float | None, ...] | None = None
    linear_probe_log_likelihood: float | None = None  #: Leave-one-out log-likelihood of the same discriminant
    linear_probe_samples: int | None = None  #: Rows in that mean: those that are not the only one of their class
    linear_probe_shrinkage: float | None = None  #: Weight of the scaled identity in the within-class covariance
    #: Leave-one-out accuracy of the 5 nearest neighbours by cosine, on a balanced sample.
    nearest_neighbour_accuracy: float | None = None
    #: Scores of the source's layers, in the order in which they run; empty if none were requested or found.
    layers: tuple[LayerScore, ...] = ()
    #: As ``linear_probe_accuracy``, on the features of all layers side by side: the best single predictor of the
    #: accuracy of a source that is fine-tuned as a whole.
    multi_layer_probe_accuracy: float | None = None
    multi_layer_probe_standard_error: float | None = None  #: Standard error of that mean
    #: Outcome of that probe on each of up to 10,000 rows; a record of a transfer does not keep it.
    linear_probe_rows: RowOutcomes | None = field(default=None, repr=False, compare=False)
    #: Outcome of that probe on each row, as ``linear_probe_rows``.
    multi_layer_probe_rows: RowOutcomes | None = field(default=None, repr=False, compare=False)
    #: Rows per image or text: 1, or with dense prediction the number of its pixels or tokens in the first batch. Rows
    #: of one image are not independent.
    rows_per_image: int = 1
    num_parameters: int | None = None  #: Parameters of the source, with its head; None for a function
    memory: str | None = None  #: Where the rows were kept
    notes: tuple[str, ...] = ()  #: What limits the numbers, one sentence each
    #: Sum of the source distributions of each target class, ``[C, Z]``. It is not saved as JSON.
    joint: "Tensor | None" = field(default=None, repr=False, compare=False)

    @property
    def floor(self) -> float:
        """LEEP of a source whose output does not depend on the input: -H(Y)."""
        return -self.label_entropy

    @property
    def largest_class_rate(self) -> float:
        """Share of the largest class: the accuracy of always predicting it."""
        return max(self.class_counts) / self.num_samples

    @property
    def leave_one_out_floor(self) -> float:
        r"""The floor of leave-one-out LEEP, :math:`\sum n_y \log(n_y/n) / \sum n_y` over classes of at least 2 rows.

        It leaves out the least probable rows, so it is the higher of the two floors. NaN if no class has 2 rows.
        """
        counts = [count for count in self.class_counts if count > 1]
        if not counts:
            return math.nan
        return sum(count * math.log(count / self.num_samples) for count in counts) / sum(counts)

    def __str__(self) -> str:
        """The five numbers that matter and the notes, one a line."""
        return summary(self)

    def describe(self) -> str:
        """Return all numbers and the notes, one a line."""
        return description(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python values; a number that is not finite becomes None, as JSON lacks it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "joint"}
        values |= {name: rows.to_dict() for name in ROW_FIELDS if (rows := values[name]) is not None}
        found: dict[str, Any] = plain(values)
        return found

    def scalars(self) -> dict[str, float]:
        """Return every field that is a single finite number, by name, for loggers."""
        return {name: float(value) for name, value in self.to_dict().items() if isinstance(value, int | float)}

    def to_json(self) -> str:
        """Return the fields as a JSON object."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TransferabilityReport":
        """Create a report from the output of :meth:`to_dict`; None becomes NaN where a number is required.

        ``TypeError`` if ``values`` is not a mapping or a field has the wrong type; ``ValueError`` if a field is unknown
        or missing, or a value impossible.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"`values` must map the field names of a TransferabilityReport to values, got {values!r}.")
        known = {f.name: f for f in fields(cls) if f.name != "joint"}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"`values` has fields that a TransferabilityReport does not have: {unknown}.")
        required = {name for name, f in known.items() if f.default is MISSING}
        if missing := sorted(required - set(values)):
            raise ValueError(f"`values` lacks fields of a TransferabilityReport: {missing}.")
        scores = {name for name in required if known[name].type in (float, float | None) and values[name] is None}
        if values["num_source_classes"] is None:  # a source without a head has none of these
            scores -= set(OUTPUT_SCORES)
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        restored: dict[str, Any] = given | dict.fromkeys(scores, math.nan)
        if isinstance(layers := restored.get("layers"), tuple):
            restored["layers"] = tuple(map(LayerScore.from_dict, layers))
        restored |= {name: RowOutcomes.from_dict(v) for name in ROW_FIELDS if (v := restored.get(name)) is not None}
        report = cls(**restored)
        check_report(report)
        return report

    @classmethod
    def from_json(cls, text: str) -> "TransferabilityReport":
        """Create a report from the output of :meth:`to_json`."""
        return cls.from_dict(json.loads(text))


def or_nan(value: float | None) -> float:
    """A score, or NaN for one that is missing."""
    return math.nan if value is None else value


# Rounding of probabilities in low precision may raise a mean of their logarithms this far above 0.
_ROUNDING = 0.01
# The logarithm of the smallest positive float64: a mean of logarithms of probabilities cannot be below it.
_LOG_TINY = -746.0
_RANGES: Ranges = {
    **dict.fromkeys(("linear_probe_samples", "num_parameters"), (0, MAX_SIZE)),
    **dict.fromkeys(("leep", "leave_one_out_leep", "permutation_mean", "nce"), (_LOG_TINY, _ROUNDING)),
    **dict.fromkeys(("eep_accuracy", "permutation_p_value", "multi_layer_probe_accuracy"), (0, 1)),
    **dict.fromkeys(("linear_probe_accuracy", "linear_probe_balanced_accuracy", "nearest_neighbour_accuracy"), (0, 1)),
    **dict.fromkeys(("label_entropy", "seconds", "samples_per_second"), (0, math.inf)),
}


def check_report(report: TransferabilityReport) -> None:
    """Check that a report from a file or a user has the right types and possible values; NaN is a missing number.

    ``TypeError`` if it is not a report, or a field has the wrong type; ``ValueError`` if a value is impossible.
    """
    if not isinstance(report, TransferabilityReport):
        raise TypeError(f"`report` must be a TransferabilityReport, got {report!r}.")
    needed = () if report.num_source_classes is None else OUTPUT_SCORES
    check_fields(report, _RANGES, missing=True, needed=needed)
    texts("notes", report.notes)
    accuracies = report.linear_probe_class_accuracy
    tuples = {"class_counts": report.class_counts, "layers": report.layers}
    if accuracies is not None:
        tuples["linear_probe_class_accuracy"] = accuracies
    for name, value in tuples.items():
        if not isinstance(value, tuple):
            raise TypeError(f"`{name}` must be a tuple, got {value!r}.")
    for name in ROW_FIELDS:
        rows = getattr(report, name)
        if rows is not None and (not isinstance(rows, RowOutcomes) or len(rows.correct) != report.num_samples):
            raise ValueError(f"`{name}` must hold outcomes of {report.num_samples} rows, got {rows!r:.200}.")
    for layer in report.layers:
        if not isinstance(layer, LayerScore):
            raise TypeError(f"`layers` must hold LayerScore, got {layer!r}.")
    for count in report.class_counts:
        check_size("class_counts", count, 0)
    if len(report.class_counts) != report.num_target_classes or sum(report.class_counts) != report.num_samples:
        raise ValueError(
            f"`class_counts` must hold {report.num_target_classes} counts with sum {report.num_samples}, "
            f"got {len(report.class_counts)} counts with sum {sum(report.class_counts)}."
        )
    check_real("label_entropy", report.label_entropy, 0, math.log(report.num_target_classes) + _ROUNDING)
    check_real("linear_probe_samples", report.linear_probe_samples or 0, 0, report.num_samples)
    for accuracy in accuracies or ():
        if accuracy is not None:
            check_real("linear_probe_class_accuracy", accuracy, 0, 1)
    if accuracies is not None and len(accuracies) != report.num_target_classes:
        raise ValueError(
            f"`linear_probe_class_accuracy` must hold one value for each of {report.num_target_classes} classes, "
            f"got {len(accuracies)}."
        )
