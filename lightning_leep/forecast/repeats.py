"""Runs of one and the same transfer, which are not independent evidence about another one."""

import math
from collections.abc import Hashable, Iterable, Sequence

from lightning_leep.records.history import History
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.records.transfer import TransferRecord

# Scores of the same rows differ by rounding alone. Those of other rows hardly ever agree so well in all three.
TOLERANCE = 1e-3


def is_same_transfer(first: TransferabilityReport, second: TransferabilityReport) -> bool:
    """Whether two reports are practically one: the same rows and classes, and scores equal to three digits.

    Compared are LEEP, leave-one-out LEEP and the accuracy of the linear probe; a score that is missing (None or NaN)
    equals another missing one alone.
    """
    if _rows(first) != _rows(second):
        return False
    return all(
        abs(a - b) <= TOLERANCE or (math.isnan(a) and math.isnan(b))
        for a, b in zip(_scores(first), _scores(second), strict=True)
    )


def distinct_transfers(records: Iterable[TransferRecord]) -> list[TransferRecord]:
    """The latest record of each transfer, oldest first.

    A sweep of the learning rate, several seeds or a run resumed more than once leave several records of one transfer:
    the same ``trainable``, target, source and report (:func:`is_same_transfer`). What they achieved is closer to one
    another than to that of a new transfer, so that an interval from all of them would be too narrow.
    """
    seen: dict[Hashable, list[TransferabilityReport]] = {}
    kept = []
    for record in reversed(History(records)):
        others = seen.setdefault((record.trainable, record.target_name, record.source_name, _rows(record.report)), [])
        if not any(is_same_transfer(record.report, other) for other in others):
            others.append(record.report)
            kept.append(record)
    return kept[::-1]


def exchangeable_records(
    report: TransferabilityReport, records: Sequence[TransferRecord], needed: int
) -> tuple[list[TransferRecord], bool]:
    """The records of which a new transfer is one more draw.

    Args:
        report: Scores of the new transfer.
        records: Earlier transfers with its ``trainable``.
        needed: Fewest records that will do.

    Returns:
        The earlier runs of the new transfer itself if there are enough of them, otherwise one record of each transfer;
        and whether it is the former.
    """
    repeats = [record for record in records if is_same_transfer(record.report, report)]
    if len(repeats) >= needed:
        return repeats, True
    return distinct_transfers(records), False


def _rows(report: TransferabilityReport) -> tuple[int, int, tuple[int, ...]]:
    return report.num_samples, report.num_source_classes, tuple(report.class_counts)


def _scores(report: TransferabilityReport) -> tuple[float, ...]:
    scores = (report.leep, report.leave_one_out_leep, report.linear_probe_accuracy)
    return tuple(math.nan if score is None else score for score in scores)
