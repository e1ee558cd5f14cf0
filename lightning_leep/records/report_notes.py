"""What a reader has to know to believe the numbers of a report, in words."""

import math

from lightning_leep.records.report import TransferabilityReport

#: ``feature_layer`` of a report whose source has no layer to take features from. No module can have this name.
LOGITS = "(logits)"

#: A permutation p-value above this is called noise, as is a leave-one-out LEEP within two standard errors of the floor.
SIGNIFICANCE = 0.05


def notes(report: TransferabilityReport, *, nleep_rows: int | None = None) -> tuple[str, ...]:
    """Sentences about a report, the most important first; none when there is nothing to warn of.

    Args:
        report: The report; notes that it already has are not looked at.
        nleep_rows: Largest number of rows that the mixture of N-LEEP is fitted to; None if N-LEEP was not asked for.
    """
    sentences = [*doubts(report), *_optimism(report), *_classes(report), *_estimates(report)]
    if nleep_rows is not None:
        sentences += _nleep(report, nleep_rows)
    return tuple(sentences)


def _nleep(report: TransferabilityReport, rows: int) -> list[str]:
    if report.nleep is None:
        return [
            f"N-LEEP could not be computed: its mixture of 5 C = {5 * report.num_target_classes} Gaussians needs at "
            f"least as many images (there are {report.num_samples}), and features."
        ]
    if report.num_samples > rows:
        return [f"The mixture of N-LEEP is fitted to {rows} of the rows, chosen at random; all are scored."]
    return []


def doubts(report: TransferabilityReport) -> list[str]:
    """Why LEEP may be no more than noise; empty when it says something about the labels."""
    if sum(count > 0 for count in report.class_counts) < 2:
        return ["All labels are of one class, so that no score says anything."]
    sentences = []
    p_value, floor = report.permutation_p_value, report.leave_one_out_floor
    out_of_sample = report.leave_one_out_leep - 2 * report.leave_one_out_leep_standard_error
    if p_value is not None and p_value > SIGNIFICANCE:
        sentences.append(
            f"LEEP cannot be told from noise: labels shuffled at random score as high too often (p = {p_value:.2f})."
        )
    elif out_of_sample <= floor:
        sentences.append(
            f"Out of sample LEEP cannot be told from noise: its leave-one-out form {report.leave_one_out_leep:.3f} is "
            f"not two standard errors above the floor {floor:.3f} of a source that says nothing."
        )
    elif p_value is None and math.isnan(out_of_sample):
        sentences.append(
            "Whether LEEP can be told from noise is not known here: there is no leave-one-out form and no permutation "
            "null."
        )
    if report.rows_per_image > 1:
        sentences.append(
            f"An image gives up to {report.rows_per_image} rows (pixels, tokens), which are not independent of each "
            "other. So standard errors, the p-value, leave-one-out scores and the linear probe are too optimistic, and "
            "do not tell LEEP from noise."
        )
    return sentences


def _optimism(report: TransferabilityReport) -> list[str]:
    height = report.leep - report.floor
    if report.permutation_mean is not None:
        bias = report.permutation_mean - report.floor
        finding = f"with shuffled labels LEEP is {report.permutation_mean:.3f} already"
    else:
        # Over the rows that are not the only one of their class the floor is another.
        bias = height - (report.leave_one_out_leep - report.leave_one_out_floor)
        finding = f"out of sample LEEP is {report.leave_one_out_leep:.3f} (floor {report.leave_one_out_floor:.3f})"
    if not (report.label_entropy > 0 and bias > 0.05 * report.label_entropy and bias > height / 2):
        return []
    return [
        f"n = {report.num_samples} images are few for Z = {report.num_source_classes} source classes: {finding}, "
        f"so that more than half of the way from the floor {report.floor:.3f} to {report.leep:.3f} says nothing. "
        "Read the leave-one-out form."
    ]


def _classes(report: TransferabilityReport) -> list[str]:
    sentences = []
    if absent := report.class_counts.count(0):
        sentences.append(f"{absent} of {report.num_target_classes} target classes have no image.")
    if single := report.class_counts.count(1):
        sentences.append(
            f"{single} of {report.num_target_classes} target classes have a single image, which is left out of the "
            "leave-one-out scores: no other image can say anything about it."
        )
    return sentences


def _estimates(report: TransferabilityReport) -> list[str]:
    sentences = []
    if report.leep_low is not None and report.leep_high is not None:
        sentences.append(
            f"LEEP is an estimate from the largest probabilities of each row; it lies between {report.leep_low:.4f} "
            f"and {report.leep_high:.4f}."
        )
    if report.feature_layer == LOGITS:
        sentences.append(
            "No layer is known to make the source's outputs, once, from a row of features for each label: no linear "
            "layer of as many outputs, no module called fc, classifier, head or linear (or its features are wider than "
            "4096, or torch.compile hides it). So the feature scores (H-score, LogME, linear probe) are made from its "
            "logits. `head=` names another layer."
        )
    if report.num_features is not None and report.h_score is None:
        sentences.append(
            "Some features are NaN, infinite or too large for their fourth powers, so that there are no feature scores "
            "(H-score, LogME, linear probe)."
        )
    if report.feature_layer is None:
        sentences.append("Neither the features nor the outputs of the source are narrow enough for feature scores.")
    return sentences
