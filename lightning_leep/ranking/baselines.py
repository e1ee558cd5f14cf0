"""What the history says of sources: how good each was on other targets, and how much better than its forecasts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lightning_leep.forecast.repeats import distinct_transfers
from lightning_leep.forecast.transfer_point import anchor_of
from lightning_leep.records.transfer import TransferRecord

#: What a table says of a source without records on other targets.
NO_HISTORY = "no history"


class SourceEffect(NamedTuple):
    """How much higher the values of a source are than those of other sources on the same targets."""

    effect: float  #: shrunk towards 0
    standard_error: float  #: of the effect
    num_records: int  #: targets behind it


class SourceHistory(NamedTuple):
    """What earlier transfers of one source to other targets say of it."""

    mean_accuracy: float  #: achieved, over the targets
    num_records: int  #: targets
    quality: SourceEffect  #: of the achieved accuracy: the static order of the sources
    correction: SourceEffect | None  #: of achieved accuracy minus the probe that forecasts start from; None without


def source_histories(
    history: Iterable[TransferRecord], *, trainable: str, target_name: str = ""
) -> dict[str, SourceHistory]:
    """What the history says of each source that was transferred to another target than ``target_name``, by its name.

    Several runs of one transfer count once, and several reports of one source on one target are averaged. Skipped are
    records of another ``trainable``, incomplete ones, those without a validation and those without a name of the source
    or the target.
    """
    achieved: dict[tuple[str, str], list[float]] = {}
    residuals: dict[tuple[str, str], list[float]] = {}
    for record in distinct_transfers(record for record in history if record.trainable == trainable and record.complete):
        key = record.source_name, record.target_name
        if record.achieved is None or not all(key) or record.target_name == target_name:
            continue
        achieved.setdefault(key, []).append(record.achieved)
        start = anchor_of(record.report, trainable, record.trained_from)[1]
        if trainable != "scratch" and np.isfinite(start):
            residuals.setdefault(key, []).append(record.achieved - start)
    qualities, corrections = _effects(achieved), _effects(residuals)
    found = {}
    for source in sorted({source for source, _ in achieved}):
        means = [np.mean(values) for (name, _), values in achieved.items() if name == source]
        found[source] = SourceHistory(float(np.mean(means)), len(means), qualities[source], corrections.get(source))
    return found


def _effects(values: Mapping[tuple[str, str], Sequence[float]]) -> dict[str, SourceEffect]:
    sources, targets = zip(*values, strict=True) if values else ((), ())
    return source_effects([float(np.mean(several)) for several in values.values()], sources, targets)


def source_effects(values: Sequence[float], sources: Sequence[str], targets: Sequence[str]) -> dict[str, SourceEffect]:
    r"""Partial pooling of values by source, after the level of each target is taken out.

    The model is :math:`y_{st} = \mu_t + \alpha_s + \epsilon_{st}` with :math:`\alpha_s \sim N(0, \sigma_\alpha^2)` and
    :math:`\epsilon_{st} \sim N(0, \sigma^2)`. With :math:`\hat\alpha_s` the effect of a source by least squares (their
    mean is 0) and :math:`n_s` its targets, the effect is the empirical Bayes estimate

    .. math:: \frac{n_s \hat\sigma_\alpha^2}{n_s \hat\sigma_\alpha^2 + \hat\sigma^2} \hat\alpha_s ,

    whose standard error is :math:`\sqrt{\hat\sigma_\alpha^2 \hat\sigma^2 / (n_s \hat\sigma_\alpha^2 + \hat\sigma^2)}`.
    :math:`\hat\sigma^2` is the residual variance and :math:`\hat\sigma_\alpha^2` what the variance of
    :math:`\hat\alpha_s` has above :math:`\hat\sigma^2 / n_s`, at least 0. Where no residual is left, as with a single
    target, both count as equal. A target with one source alone says nothing of it. If nothing varies, all are 0.

    Source: Efron and Morris, "Data analysis using Stein's estimator and its generalizations", Journal of the American
    Statistical Association 70 (1975); Gelman and Hill, Data Analysis Using Regression and Multilevel/Hierarchical
    Models (2007), equation 12.1.

    Example:
        >>> effects = source_effects([0.9, 0.8, 0.7, 0.6], ["a", "b", "a", "b"], ["x", "x", "y", "y"])
        >>> round(effects["a"].effect, 6), round(effects["b"].effect, 6)
        (0.05, -0.05)
    """
    if not values:
        return {}
    y = np.asarray(values, dtype=float)  # [n]
    names, of_source = np.unique(sources, return_inverse=True)
    levels, of_target = np.unique(targets, return_inverse=True)
    design = np.concatenate([np.eye(len(levels))[of_target], np.eye(len(names))[of_source]], axis=1)  # [n, T + S]
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    raw = solution[len(levels) :] - solution[len(levels) :].mean()  # [S]
    shared = np.bincount(of_target)[of_target] > 1  # [n]
    counts = np.bincount(of_source, weights=shared, minlength=len(names))  # [S]
    freedom = len(y) - rank
    noise = float(np.square(y - design @ solution).sum() / freedom) if freedom else 0.0
    told = counts > 0
    spread = float(np.square(raw[told]).sum() / max(told.sum() - 1, 1)) if told.any() else 0.0
    between = max(0.0, spread - noise * float(np.mean(1 / counts[told]))) if told.any() else 0.0
    if not freedom:
        noise = between = spread / 2
    weights = counts * between
    shrunk = np.divide(weights, weights + noise, out=np.zeros_like(weights), where=weights + noise > 0)  # [S]
    errors = np.sqrt(between * (1 - shrunk))  # [S]
    return {
        str(name): SourceEffect(float(effect), float(error), int(count))
        for name, effect, error, count in zip(names, shrunk * raw, errors, counts, strict=True)
    }
