"""The validation accuracy of one training run, and how fast it rose."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lightning_leep.utils.checks import real_numbers

#: No run trains for so long; from here on floating-point numbers skip whole epochs.
MAX_EPOCHS = 2.0**53


@dataclass(frozen=True)
class AccuracyCurve:
    """Validation accuracy of one run against the epochs trained.

    An epoch counts when it has been trained: the validation after the first epoch is at 1, one in the middle of it at
    0.5, one before training at 0. Every epoch that a method returns is that of the *first validation* at which
    something holds, never a point between two validations: there the accuracy was not measured.

    Raises:
        TypeError: If an element is not a number.
        ValueError: If the lengths differ, the epochs do not increase, or an accuracy is outside 0..1 (divide a
            percentage by 100).

    Example:
        >>> curve = AccuracyCurve().append(1, 0.4).append(2, 0.7).append(3, 0.8)
        >>> curve.best, curve.epochs_to(0.5), curve.epochs_to(0.99), curve.epoch_reaching(0.9)
        (0.8, 1.0, 3.0, None)
    """

    epochs: tuple[float, ...] = ()  #: Epochs trained before each validation, strictly increasing, at least 0
    accuracy: tuple[float, ...] = ()  #: Accuracy in 0..1 at each validation

    def __post_init__(self) -> None:
        epochs, accuracy = real_numbers("epochs", self.epochs), real_numbers("accuracy", self.accuracy)
        if len(epochs) != len(accuracy):
            raise ValueError(
                f"`epochs` and `accuracy` must have one entry per validation, got {len(epochs)} and {len(accuracy)}."
            )
        for epoch, previous in zip(epochs, (-math.inf, *epochs), strict=False):
            if not (0 <= epoch < MAX_EPOCHS and epoch > previous):
                raise ValueError(
                    f"`epochs` must be finite (below 2^53), not negative and strictly increasing, "
                    f"got {epoch:g} after {previous:g}."
                )
        for value in accuracy:
            if not 0 <= value <= 1:
                raise ValueError(f"`accuracy` must lie in 0..1 (divide a percentage by 100), got {value:g}.")
        object.__setattr__(self, "epochs", epochs)
        object.__setattr__(self, "accuracy", accuracy)

    def __len__(self) -> int:
        """Number of validations."""
        return len(self.epochs)

    def append(self, epoch: float, accuracy: float) -> "AccuracyCurve":
        """Return a new curve with one more validation at the end."""
        return AccuracyCurve((*self.epochs, epoch), (*self.accuracy, accuracy))

    @property
    def best(self) -> float:
        """Highest accuracy of all validations."""
        self._check_not_empty("best accuracy")
        return max(self.accuracy)

    @property
    def final(self) -> float:
        """Accuracy of the last validation."""
        self._check_not_empty("final accuracy")
        return self.accuracy[-1]

    def accuracy_at(self, epoch: float) -> float | None:
        """Return the accuracy after ``epoch`` epochs, interpolated linearly; None outside the measured range."""
        if not self.epochs or not self.epochs[0] <= epoch <= self.epochs[-1]:
            return None
        return float(np.interp(epoch, self.epochs, self.accuracy))

    def epoch_reaching(self, level: float) -> float | None:
        """Return the epoch of the first validation with an accuracy of at least ``level``; None if there is none."""
        return next((e for e, a in zip(self.epochs, self.accuracy, strict=True) if a >= level), None)

    def epochs_to(self, fraction: float) -> float | None:
        """Return the epoch of the first validation with at least ``fraction``, in 0..1, of the best; None if empty."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"`fraction` must lie in 0..1, got {fraction}.")
        return self.epoch_reaching(fraction * self.best) if self.epochs else None

    def area_under_curve(self) -> float:
        """Return the mean height of the curve, in 0..1: its area (trapezoids) divided by its length in epochs."""
        self._check_not_empty("area under the curve")
        if len(self) == 1:
            return self.accuracy[0]
        middles = (np.array(self.accuracy[1:]) + self.accuracy[:-1]) / 2
        # Rounding may carry the mean past the values that it is a mean of.
        return float(np.average(middles, weights=np.diff(self.epochs)).clip(min(self.accuracy), max(self.accuracy)))

    def difference_to(self, reference: "Reference") -> tuple[float | None, ...]:
        """Return the accuracy minus that of the reference after the same number of epochs, for each validation.

        A reference curve is interpolated linearly; outside its measured range the entry is None.
        """
        levels = (reference_accuracy(reference, epoch) for epoch in self.epochs)
        return tuple(None if level is None else a - level for a, level in zip(self.accuracy, levels, strict=True))

    def epoch_passing(self, reference: "Reference") -> float | None:
        """Return the epoch of the first validation above the reference at the same epoch; None if there is none."""
        differences = self.difference_to(reference)
        return next((e for e, d in zip(self.epochs, differences, strict=True) if d is not None and d > 0), None)

    def _check_not_empty(self, what: str) -> None:
        if not self.epochs:
            raise ValueError(f"An AccuracyCurve without validations has no {what}.")


#: What a run is compared with: the curve of another run, or one accuracy.
Reference: TypeAlias = AccuracyCurve | float


def reference_accuracy(reference: Reference, epoch: float) -> float | None:
    """Return the accuracy of the reference after ``epoch`` epochs: the number itself, or the curve there."""
    return reference.accuracy_at(epoch) if isinstance(reference, AccuracyCurve) else float(reference)


def best_accuracy(reference: Reference) -> float | None:
    """Return the best accuracy of the reference: the number itself, or the curve's (None if the curve is empty)."""
    if isinstance(reference, AccuracyCurve):
        return reference.best if len(reference) else None
    return float(reference)


def convergence_scalars(
    curve: AccuracyCurve, predicted: float | None = None, reference: Reference | None = None
) -> dict[str, float]:
    """Return how far and how fast a run came, by name. Accuracies are in 0..1, times in epochs trained.

    They are ``best_accuracy``, ``final_accuracy``, ``area_under_curve``, ``epochs_to_50_percent``,
    ``epochs_to_90_percent``, ``epochs_to_99_percent`` (of the best accuracy), ``epoch_prediction_reached``,
    ``epoch_reference_passed`` (above the reference at the same epoch) and ``epoch_reference_best_reached`` (at least
    the best of the reference). What does not exist is left out.
    """
    if not len(curve):
        return {}
    values = {
        "best_accuracy": curve.best,
        "final_accuracy": curve.final,
        "area_under_curve": curve.area_under_curve(),
        **{f"epochs_to_{percent}_percent": curve.epochs_to(percent / 100) for percent in (50, 90, 99)},
        "epoch_prediction_reached": None if predicted is None else curve.epoch_reaching(predicted),
    }
    if reference is not None and (level := best_accuracy(reference)) is not None:
        values["epoch_reference_passed"] = curve.epoch_passing(reference)
        values["epoch_reference_best_reached"] = curve.epoch_reaching(level)
    return {name: value for name, value in values.items() if value is not None}
