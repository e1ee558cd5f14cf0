"""Which sources can be told from the best one, given that it was picked as the best."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from lightning_leep.forecast.statistics.conformal import Array, check_coverage
from lightning_leep.forecast.transfer_point import ALL_LAYERS, EMPIRICAL_PREDICTOR, SOME_LAYERS, anchor_of
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.records.row_outcomes import RowOutcomes

#: Why the rows of two sources are not compared one by one.
UNPAIRED = "compared without pairing the rows: the column has no outcome of each row, or the rows are not the same"
#: More rows than this are no advice.
MOST_ROWS = 10**7
#: A gap below one standard error is never called, however sure the log-likelihoods are.
LEAST_GAP = 1.0
#: Leave-one-out outcomes depend on each other: each row is part of the probes of all others. In simulations
#: (docs/measured.md) that adds about d/n to the variance of their mean over n rows of d features, as a share of it, and
#: no more than this.
MOST_DEPENDENCE = 0.5


@dataclass(frozen=True)
class Estimate:
    """A column's value for one source, and how sure it is."""

    value: float  #: higher is better; NaN if it is missing
    standard_error: float | None = None  #: of the value over samples of rows; None if it is not known
    num_rows: int = 0  #: rows that the value was measured on
    #: Share of the value that each row brings, ``[n]``, so that the value is their mean; None if not known.
    correct: Array | None = None
    log_likelihood: Array | None = None  #: of each row, ``[n]``; None if not known
    labels: int | None = None  #: checksum of the rows' labels: two sources with the same one are compared row by row
    dependence: float = 0.0  #: what the dependence of the rows adds to the variance of their mean, as a share of it
    other_error: float = 0.0  #: standard error of what was added to the mean of the rows, such as a source effect


class Comparison(NamedTuple):
    """A source beside the best one."""

    rank: int | None  #: from 1; ties with the best share 1; None without a value
    tied_with_best: bool  #: whether it cannot be told from the best, or is it
    gap: float | None  #: value of the best minus this one
    standard_error: float | None  #: of the gap if there is none; None if not known, and for the best itself
    more_samples: int | None  #: rows, beyond those scored, that would settle a tie if the gap stays; None if none would
    note: str = ""  #: what limits the comparison


def forecast_estimate(
    report: TransferabilityReport, value: float, trainable: str, trained_from: str = "", other_error: float = 0.0
) -> Estimate:
    """Return a forecast of accuracy as an estimate, with the sampling error of the probe that it starts from."""
    anchor, accuracy = anchor_of(report, trainable, trained_from)
    num_rows = (
        report.num_samples if anchor == EMPIRICAL_PREDICTOR else report.linear_probe_samples or report.num_samples
    )
    error = math.sqrt(accuracy * (1 - accuracy) / num_rows)
    head, together = report.linear_probe_rows, report.multi_layer_probe_rows
    rows: dict[str, list[RowOutcomes | None]]
    rows = {ALL_LAYERS: [together], SOME_LAYERS: [head, together], EMPIRICAL_PREDICTOR: [None]}
    # The likelihood on the head's features orders fine-tuned sources as well as that on all layers (docs/measured.md).
    likely = [head, together] if anchor == ALL_LAYERS and head is not None else None
    dependence = 0.0 if anchor == EMPIRICAL_PREDICTOR else _dependence(report, anchor in (ALL_LAYERS, SOME_LAYERS))
    estimate = Estimate(value, error, num_rows, dependence=dependence, other_error=other_error)
    return _with_rows(estimate, rows.get(anchor, [head]), likely)


def score_estimate(report: TransferabilityReport, name: str) -> Estimate:
    """Return a field of a report as an estimate, with the standard error and the rows that the report knows of it."""
    value, together = getattr(report, name), name == "multi_layer_probe_accuracy"
    error = getattr(report, "multi_layer_probe_standard_error" if together else f"{name}_standard_error", None)
    rows = report.multi_layer_probe_rows if together else report.linear_probe_rows
    estimate = Estimate(math.nan if value is None else value, error, report.num_samples)
    if name not in ("linear_probe_accuracy", "multi_layer_probe_accuracy"):
        return estimate
    return _with_rows(replace(estimate, dependence=_dependence(report, together)), [rows])


def _dependence(report: TransferabilityReport, together: bool) -> float:
    features = sum(layer.kept_width for layer in report.layers) if together else report.num_features or 0
    return min(MOST_DEPENDENCE, features / report.num_samples)


def _with_rows(
    estimate: Estimate, rows: list[RowOutcomes | None], likely: list[RowOutcomes | None] | None = None
) -> Estimate:
    """Add the outcomes of the rows, as means over probes; ``likely`` are those of the likelihoods, if others."""
    known, of_likelihood = ([rows for rows in given if rows is not None] for given in (rows, likely or rows))
    if len(known) < len(rows):
        return estimate
    correct = np.mean([outcomes.correct for outcomes in known], axis=0)  # [n]
    log_likelihood = np.mean([outcomes.log_likelihood for outcomes in of_likelihood], axis=0)  # [n]
    num_rows, labels = int(np.isfinite(correct).sum()), known[0].labels
    return replace(estimate, num_rows=num_rows, correct=correct, log_likelihood=log_likelihood, labels=labels)


def compare_with_best(estimates: Mapping[str, Estimate], confidence: float = 0.95) -> dict[str, Comparison]:
    r"""Compare each source with the one of the highest value, and say which cannot be told from it, the best first.

    With :math:`d_i` the difference of two sources' correctness on row i and :math:`e_i` that of their log-likelihoods,
    :math:`z_d = \sum_i d_i / \sqrt{\sum_i d_i^2}` is McNemar's statistic, :math:`z_e` the same of :math:`e_i`, which
    sees smaller differences, r the correlation of both, and c the ``dependence``. A source is tested by
    :math:`z = (z_d + z_e) / \sqrt{(2 + 2 r) (1 + c)}`, and told from the best only if the gap is at least one standard
    error as well. Two sources count as equal if neither correctness nor log-likelihood differs in the mean.

    The best was picked because it is the best, so that the comparison with it is the most extreme of all pairs. Holm's
    procedure (Scandinavian Journal of Statistics 6, 1979) goes from the clearest comparison to the least clear one; at
    each step a p-value is multiplied by the m (m - 1) / 2 pairs of the m sources that are left, the best among them.
    If no two sources differ, none is told from the best in a share ``confidence`` of rankings.

    Without the outcomes of the same rows, or if a value is more than their mean, z is the gap over its standard error:
    the root of the sum of the squared errors of both. Without standard errors, sources are ordered by value alone.

    Example:
        >>> found = compare_with_best({"a": Estimate(0.8, 0.02, 500), "b": Estimate(0.6, 0.02, 500)})
        >>> found["b"].tied_with_best, round(found["b"].gap, 3), found["b"].rank
        (False, 0.2, 2)
    """
    check_coverage(confidence)
    names = [name for name, estimate in estimates.items() if math.isfinite(estimate.value)]
    names.sort(key=lambda name: _order(estimates[name]))
    missing = {name: Comparison(None, False, None, None, None) for name in estimates if name not in names}
    if not names:
        return missing
    best = estimates[names[0]]
    tests = {name: _test(best, estimates[name]) for name in names[1:]}
    known = sorted((name for name in tests if tests[name].error is not None), key=lambda n: -tests[n].z)
    separated = {name for name in tests if tests[name].error is None and estimates[name].value < best.value}
    critical = math.inf
    for place, name in enumerate(known):
        left = len(known) - place + 1
        critical = NormalDist().inv_cdf(1 - (1 - confidence) / (left * (left - 1)))
        if tests[name].z < critical:
            break
        separated.add(name)
    ranks, found = 1, {names[0]: Comparison(1, True, 0.0, None, None)}
    in_front = len(names) - len(separated)  # the best and its ties
    for name in names[1:]:
        test, gap = tests[name], best.value - estimates[name].value
        if name not in separated:
            more = _more_samples(test, critical, min(best.num_rows, estimates[name].num_rows))
            found[name] = Comparison(1, True, gap, test.error, more, test.note)
            continue
        equal = any(other in separated and estimates[other].value == estimates[name].value for other in found)
        ranks = ranks if equal else in_front + 1
        in_front += 1
        found[name] = Comparison(ranks, False, gap, test.error, None, test.note)
    return found | missing


def _order(estimate: Estimate) -> tuple[float, float]:
    """By value, and by the likelihood where two values are the same."""
    likelihood = estimate.log_likelihood
    return -estimate.value, 0.0 if likelihood is None else -float(np.nanmean(likelihood))


class _Test(NamedTuple):
    z: float  # of the combined test
    gap: float  # in standard errors
    error: float | None  # of the gap
    note: str


def _test(best: Estimate, other: Estimate) -> _Test:
    gap = best.value - other.value
    more, stretch = (
        math.hypot(best.other_error, other.other_error),
        math.sqrt(1 + max(best.dependence, other.dependence)),
    )
    pairs = None if best.labels is None or best.labels != other.labels else _paired(best, other)
    if pairs is None:
        if best.standard_error is None or other.standard_error is None:
            return _Test(math.nan, math.nan, None, "")
        error = math.hypot(stretch * best.standard_error, stretch * other.standard_error, more)
        z = gap / error if error else math.inf if gap > 0 else 0.0
        return _Test(z, z, error, UNPAIRED)
    correct, likelihood = pairs  # [n] each
    error = math.hypot(stretch * math.sqrt(correct @ correct) / len(correct), more)
    z = gap / error if error else 0.0
    together, size = z, math.sqrt(likelihood @ likelihood)
    if not more and error and size:
        r = (correct @ likelihood) / (math.sqrt(correct @ correct) * size)
        together = (z + likelihood.sum() / (stretch * size)) / math.sqrt(2 + 2 * max(r, 0.0))
    return _Test(together if z >= LEAST_GAP else min(z, together), z, error, "")


def _paired(best: Estimate, other: Estimate) -> tuple[Array, Array] | None:
    """Differences of correctness and log-likelihood on the rows that both have."""
    if best.correct is None or other.correct is None or best.log_likelihood is None or other.log_likelihood is None:
        return None
    correct, likelihood = best.correct - other.correct, best.log_likelihood - other.log_likelihood
    kept = np.isfinite(correct) & np.isfinite(likelihood)
    return (correct[kept], likelihood[kept]) if kept.any() else None


def _more_samples(test: _Test, critical: float, num_rows: int) -> int | None:
    """Rows beyond ``num_rows`` with which the test would be as clear as it must be, rounded up to two digits.

    None if no number of rows would do, or only one above ``MOST_ROWS``.
    """
    if test.error is None or not (test.z > 0 and test.gap > 0 and math.isfinite(critical)):
        return None
    factor = max(critical / test.z, LEAST_GAP / test.gap)
    if factor * math.sqrt(max(num_rows, 1)) >= math.sqrt(MOST_ROWS):
        return None
    more = num_rows * (factor**2 - 1)
    unit = 10 ** max(0, math.floor(math.log10(max(more, 1))) - 1)
    return max(1, unit * math.ceil(more / unit))
