"""Several runs of the same transfer, which are not independent evidence about another transfer."""

import math
from collections.abc import Hashable, Iterable, Sequence

from lightning_leep.records.history import History
from lightning_leep.records.report import TransferabilityReport, or_nan
from lightning_leep.records.transfer import TransferRecord

# Scores of the same rows differ by rounding only. Scores of other rows hardly ever agree so closely in all three.
TOLERANCE = 1e-3


def is_same_transfer(first: TransferabilityReport, second: TransferabilityReport) -> bool:
    """Return whether two reports are of the same transfer: the same sizes, and scores equal to three digits.

    The scores are LEEP, leave-one-out LEEP and the accuracy of the linear probe; a missing one equals a missing one.
    """
    if _rows(first) != _rows(second):
        return False
    return all(
        abs(a - b) <= TOLERANCE or (math.isnan(a) and math.isnan(b))
        for a, b in zip(_scores(first), _scores(second), strict=True)
    )


def distinct_transfers(records: Iterable[TransferRecord]) -> list[TransferRecord]:
    """Return the latest record of each transfer, oldest first.

    A sweep, several seeds or a resumed run leave records with the same ``trainable``, target, source and report.
    Their accuracies are closer to each other than to that of a new transfer: all of them give too narrow an interval.
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
    """Return the records that are exchangeable with a new transfer, and whether they are runs of it.

    With at least ``needed`` earlier runs of the new transfer these alone; else one record of each transfer.
    """
    repeats = [record for record in records if is_same_transfer(record.report, report)]
    if len(repeats) >= needed:
        return repeats, True
    return distinct_transfers(records), False


def _rows(report: TransferabilityReport) -> tuple[int, int | None, tuple[int, ...]]:
    return report.num_samples, report.num_source_classes, tuple(report.class_counts)


def _scores(report: TransferabilityReport) -> tuple[float, ...]:
    return tuple(map(or_nan, (report.leep, report.leave_one_out_leep, report.linear_probe_accuracy)))
