"""What the history says of sources: how good each was on other targets, and what that adds to its forecast."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lightning_leep.forecast.repeats import distinct_transfers
from lightning_leep.records.transfer import TransferRecord


class SourceEffect(NamedTuple):
    """How much higher the values of a source are than those of other sources on the same targets."""

    effect: float  #: shrunk towards 0
    standard_error: float  #: of the effect
    num_records: int  #: targets behind it
    group: int = 0  #: the same for sources that share targets, directly or through others: only these compare


class SourceHistory(NamedTuple):
    """What earlier transfers of one source to other targets say of it."""

    mean_accuracy: float  #: achieved, over the targets
    num_records: int  #: targets
    effect: SourceEffect  #: of the achieved accuracy: the static order of the sources


def source_histories(
    history: Iterable[TransferRecord], *, trainable: str, target_name: str = ""
) -> dict[str, SourceHistory]:
    """What the history says of each source that was transferred to another target than ``target_name``, by its name.

    Several runs of one transfer count once, and several reports of one source on one target are averaged. Skipped are
    incomplete records, those without a validation and those without a name of the source or the target.
    """
    achieved: dict[tuple[str, str], list[float]] = {}
    for record in distinct_transfers(record for record in history if record.trainable == trainable and record.complete):
        key = record.source_name, record.target_name
        if record.achieved is not None and all(key) and record.target_name != target_name:
            achieved.setdefault(key, []).append(record.achieved)
    means = {key: float(np.mean(values)) for key, values in achieved.items()}
    effects = source_effects(list(means.values()), [source for source, _ in means], [target for _, target in means])
    found = {}
    for source, effect in effects.items():
        own = [mean for (name, _), mean in means.items() if name == source]
        found[source] = SourceHistory(float(np.mean(own)), len(own), effect)
    return found


def history_shifts(
    forecasts: Mapping[str, float], histories: Mapping[str, SourceHistory]
) -> dict[str, tuple[float, float]]:
    r"""What the history adds to forecasts of accuracy on one target, and the standard error of that.

    Forecasts :math:`f_s` and effects in the history :math:`a_s` both tell how far a source is above others. With
    both about their means over the sources that have a history, a forecast moves by :math:`h_s (a_s - f_s)`,
    :math:`h_s = n_s / (2 n_s + 1)` for :math:`n_s` targets: the weight of the history by inverse variances if both
    predict a new target equally well, but for the error of the effect, whose variance is :math:`1 / n_s` of that. (On
    equal weights: Clemen, "Combining forecasts", International Journal of Forecasting 5, 1989.)

    Shifts and errors are 0 for a source without a history, or whose history shares no target with that of another one.

    Example:
        >>> better, worse = SourceEffect(0.1, 0.0, 1), SourceEffect(-0.1, 0.0, 1)
        >>> past = {"a": SourceHistory(0.8, 1, better), "b": SourceHistory(0.6, 1, worse)}
        >>> shifts = history_shifts({"a": 0.7, "b": 0.7, "c": 0.7}, past)
        >>> [round(shift, 3) for shift, _ in shifts.values()]
        [0.033, -0.033, 0.0]
    """
    shifts = dict.fromkeys(forecasts, (0.0, 0.0))
    known = {name: histories[name].effect for name in forecasts if name in histories}
    for group in {effect.group for effect in known.values()}:
        members = {name: effect for name, effect in known.items() if effect.group == group}
        level = np.mean([forecasts[name] for name in members])
        middle = np.mean([effect.effect for effect in members.values()])
        for name, effect in members.items() if len(members) > 1 else ():
            weight = effect.num_records / (2 * effect.num_records + 1)
            gap = (effect.effect - middle) - (forecasts[name] - level)
            shifts[name] = float(weight * gap), weight * effect.standard_error
    return shifts


def source_effects(values: Sequence[float], sources: Sequence[str], targets: Sequence[str]) -> dict[str, SourceEffect]:
    r"""Partial pooling of values by source, after the level of each target is taken out.

    The model is :math:`y_{st} = \mu_t + \alpha_s + \epsilon_{st}` with :math:`\alpha_s \sim N(0, \sigma_\alpha^2)` and
    :math:`\epsilon_{st} \sim N(0, \sigma^2)`. With :math:`\hat\alpha_s` the effect of a source by least squares (their
    mean is 0 in each group of sources that share targets, directly or through others) and :math:`n_s` its targets, the
    effect is the empirical Bayes estimate

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
    joined = np.zeros((len(names), len(levels)))
    joined[of_source, of_target] = 1
    linked = joined @ joined.T > 0  # [S, S]
    for _ in range(len(names).bit_length()):
        linked = linked @ linked
    groups = linked.argmax(axis=1)  # [S], the first source of each group
    # Targets of different groups may differ in difficulty, which nothing can tell from the merit of the sources.
    raw = solution[len(levels) :] - linked @ solution[len(levels) :] / linked.sum(axis=1)  # [S]
    shared = np.bincount(of_target)[of_target] > 1  # [n]
    counts = np.bincount(of_source, weights=shared, minlength=len(names))  # [S]
    freedom = len(y) - rank
    noise = float(np.square(y - design @ solution).sum() / freedom) if freedom else 0.0
    told = counts > 0
    free = max(told.sum() - len(set(groups[told])), 1)
    spread = float(np.square(raw[told]).sum() / free) if told.any() else 0.0
    between = max(0.0, spread - noise * float(np.mean(1 / counts[told]))) if told.any() else 0.0
    if not freedom:
        noise = between = spread / 2
    weights = counts * between
    shrunk = np.divide(weights, weights + noise, out=np.zeros_like(weights), where=weights + noise > 0)  # [S]
    errors = np.sqrt(between * (1 - shrunk))  # [S]
    return {
        str(name): SourceEffect(float(effect), float(error), int(count), int(group))
        for name, effect, error, count, group in zip(names, shrunk * raw, errors, counts, groups, strict=True)
    }
