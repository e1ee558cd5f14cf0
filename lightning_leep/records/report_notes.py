"""Sentences about a report that say what limits its numbers."""

import math
from collections.abc import Sequence

from lightning_leep.records.report import TransferabilityReport, or_nan

#: ``feature_layer`` of a report whose features are the logits. No module can have this name.
LOGITS = "(logits)"

#: A permutation p-value above this is called noise, and so is a leave-one-out LEEP within two standard errors of the
#: floor.
SIGNIFICANCE = 0.05


#: Target classes whose mean outputs are this close get the same output.
SAME_OUTPUT = 1e-9


def notes(
    report: TransferabilityReport,
    feature_scores: bool = True,
    nleep_rows: int | None = None,
    *,
    misread: Sequence[str] = (),
    remarks: Sequence[str] = (),
    layers_left_out: Sequence[tuple[str, str]] = (),
) -> tuple[str, ...]:
    """Return what limits the numbers of a report, the most important sentence first; empty if nothing does.

    ``nleep_rows`` are the most that the mixture of N-LEEP is fitted to, None if N-LEEP was not requested. ``misread``
    sentences say why the scores of the outputs are wrong, ``remarks`` what else was noticed about the outputs.
    ``layers_left_out`` are layers without scores, each with the reason, which goes on after the name of the layer.
    """
    without_outputs = "The source has no head (`head=False`): LEEP, NCE and the EEP are left out."
    remarks = [without_outputs, *remarks] if report.leep is None else remarks
    wrong = [*misread, *_same_output(report)]
    sentences = [*wrong, *remarks, *doubts(report, bool(wrong)), *([] if wrong else _optimism(report))]
    sentences += _classes(report)
    if feature_scores:
        sentences += _features(report)
    if nleep_rows is not None:
        sentences += _nleep(report, nleep_rows)
    return (*sentences, *_layers(layers_left_out))


def _layers(left_out: Sequence[tuple[str, str]]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out:
        by_reason.setdefault(reason, []).append(name)
    return [
        f"There are no scores of the layer {names[0]!r}, which {reason}."
        + (f" The same holds for {len(names) - 1} more, to {names[-1]!r}." if len(names) > 1 else "")
        for reason, names in by_reason.items()
    ]


def explained_share(report: TransferabilityReport) -> float | None:
    r"""Share of the label entropy that the source explains out of sample; None if that is unknown.

    :math:`\max(0, 1 - L / L_0)` with the leave-one-out LEEP L and that of a source that says nothing, :math:`L_0`, over
    the same rows. (LEEP itself is in-sample, and would explain pure noise.)
    """
    floor = report.leave_one_out_floor
    score = or_nan(report.leave_one_out_leep)
    if not (floor < 0 and math.isfinite(score)):
        return None
    return max(0.0, 1 - score / floor)


def doubts(report: TransferabilityReport, explained: bool = False) -> list[str]:
    """Return why LEEP may be noise, unless that is ``explained`` already; empty if it carries information."""
    if sum(count > 0 for count in report.class_counts) < 2:
        return ["All labels are of one class, so the scores say nothing."]
    sentences = []
    p_value, floor = report.permutation_p_value, report.leave_one_out_floor
    out_of_sample = or_nan(report.leave_one_out_leep) - 2 * or_nan(report.leave_one_out_leep_standard_error)
    if explained or report.leep is None:
        pass
    elif p_value is not None and p_value > SIGNIFICANCE:
        sentences.append(
            "LEEP cannot be told from noise: with shuffled labels it is as high too often "
            f"(permutation p-value {p_value:.2f}).{_contrast(report)}"
        )
    elif out_of_sample <= floor:
        sentences.append(
            f"Out of sample, LEEP cannot be told from noise: leave-one-out LEEP {report.leave_one_out_leep:.3f} is "
            f"less than two standard errors above {floor:.3f}, the floor of a source that says nothing."
            + _contrast(report)
        )
    elif p_value is None and math.isnan(out_of_sample):
        sentences.append(
            "Whether LEEP can be told from noise is unknown: there is no leave-one-out LEEP and no permutation test."
        )
    if report.rows_per_image > 1:
        sentences.append(
            f"An image gives up to {report.rows_per_image} rows (pixels, tokens), which are not independent. Standard "
            "errors, the p-value, leave-one-out scores and the linear probe are too optimistic, and cannot tell LEEP "
            "from noise."
        )
    return sentences


def _contrast(report: TransferabilityReport) -> str:
    """What explains a LEEP like noise beside a linear probe that is clearly better than chance; empty if none is."""
    accuracy, error = report.linear_probe_accuracy, report.linear_probe_accuracy_standard_error
    largest = report.largest_class_rate
    if report.feature_layer == LOGITS or accuracy is None or error is None or not accuracy - 3 * error > largest:
        return ""
    return (
        f" The linear probe can ({accuracy:.3f}; the largest class has {largest:.3f} of the rows): the source's "
        "features tell the classes apart, its outputs do not. LEEP scores the outputs, a new head uses the features."
    )


def _same_output(report: TransferabilityReport) -> list[str]:
    if report.joint is None:
        return []
    joint = report.joint.double()  # [C, Z]
    means = (joint / joint.sum(dim=1, keepdim=True))[joint.sum(dim=1) > 0]  # [c, Z]
    if len(means) < 2 or float((means - means[:1]).abs().max()) > SAME_OUTPUT:
        return []
    return [
        "The source's outputs are the same for every target class, so LEEP is at its floor and says nothing. They may "
        "be constant, as those of a head whose weights are 0."
    ]


def _optimism(report: TransferabilityReport) -> list[str]:
    if report.leep is None:
        return []
    height = report.leep - report.floor
    if report.permutation_mean is not None:
        bias = report.permutation_mean - report.floor
        finding = f"with shuffled labels LEEP is {report.permutation_mean:.3f} already"
    else:
        # Leave-one-out LEEP has a floor of its own: it leaves out rows that are the only one of their class.
        bias = height - (or_nan(report.leave_one_out_leep) - report.leave_one_out_floor)
        finding = f"out of sample LEEP is {report.leave_one_out_leep:.3f} (floor {report.leave_one_out_floor:.3f})"
    if not (report.label_entropy > 0 and bias > 0.05 * report.label_entropy and bias > height / 2):
        return []
    return [
        f"n = {report.num_samples} images are few for Z = {report.num_source_classes} source classes: {finding}, so "
        f"more than half of the rise from the floor {report.floor:.3f} to {report.leep:.3f} says nothing. "
        "Use leave-one-out LEEP."
    ]


def _classes(report: TransferabilityReport) -> list[str]:
    sentences = []
    if absent := report.class_counts.count(0):
        sentences.append(f"{absent} of {report.num_target_classes} target classes have no image.")
    if single := report.class_counts.count(1):
        sentences.append(
            f"{single} of {report.num_target_classes} target classes have a single image. The leave-one-out scores "
            "leave it out, because no other image of its class is known."
        )
    return sentences


def _features(report: TransferabilityReport) -> list[str]:
    if report.feature_layer is None:
        return ["There are no feature scores: the features and the outputs of the source are too wide."]
    sentences = []
    if report.feature_layer == LOGITS:
        sentences.append(
            "The feature scores (H-score, LogME, linear probe) are computed from the logits, because the source's last "
            "layer was not found: a linear layer with as many outputs, or a module named fc, classifier, head or "
            "linear, that runs once and gives one row for each label. (Its features may also be wider than 4096, or "
            "torch.compile may hide it.) Name the layer with `head=`."
        )
    if report.num_features is not None and report.h_score is None:
        sentences.append(
            "There are no feature scores (H-score, LogME, linear probe): some features are NaN, infinite, or too large "
            "for their fourth powers."
        )
    return sentences


def _nleep(report: TransferabilityReport, rows: int) -> list[str]:
    if report.nleep is None:
        return [
            f"N-LEEP could not be computed: its mixture of 5 C = {5 * report.num_target_classes} Gaussians needs "
            f"features and at least as many images (there are {report.num_samples})."
        ]
    if report.num_samples > rows:
        return [f"The mixture of N-LEEP is fitted to {rows} random rows; all rows are scored."]
    return []
