"""A grid of shapes in which an accuracy may rise during training, regardless of its height."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lightning_leep.forecast.statistics.conformal import Array

# Exponents c of (1 + t / tau)^-c, infinity for the exponential, and their prior probabilities.
EXPONENTS = ((0.5, 0.08), (1.0, 0.17), (2.0, 0.25), (math.inf, 0.5))
# Share of the rise that follows the schedule of the run instead of a time scale, and prior probabilities.
SCHEDULE_SHARES = ((0.0, 0.7), (0.25, 0.12), (0.5, 0.1), (0.75, 0.08))
# Number of time scales on a logarithmic grid; the longest in units of the whole training.
NUM_TIME_SCALES, LONGEST = 64, 10.0
# After this many time scales every shape has less than 1% of its rise left.
ENDLESS = 1e4


@dataclass(frozen=True)
class CurveShapes:
    r"""The part of the rise, from the accuracy before training to that at its end, that is left: k shapes.

    .. math:: l(t) = (1 - b) \frac{\varphi(t / \tau) - \varphi(T / \tau)}{1 - \varphi(T / \tau)} + b\, h(t / T), \qquad
        \varphi(u) = (1 + u)^{-c},\ c = \tfrac12, 1, 2, \text{ or } e^{-u}, \qquad
        h(s) = \tfrac12 (1 + \cos \pi s) \text{ or } 1 - s.

    The first term saturates, as training at a constant learning rate does. The second rises until the end, as when the
    learning rate falls along a cosine or a line; without an end it is absent.
    """

    time_scale: Array  #: tau in epochs, ``[k]``
    exponent: Array  #: c, ``[k]``
    share: Array  #: b, ``[k]``
    straight: Array  #: whether h is the line, ``[k]``
    end: float  #: T in epochs; infinity for endless training

    def __getitem__(self, index: Array) -> "CurveShapes":
        """Select shapes by index, possibly repeatedly."""
        return CurveShapes(
            self.time_scale[index], self.exponent[index], self.share[index], self.straight[index], self.end
        )

    def left(self, epochs: Array) -> Array:
        """Return the part that is left after ``epochs [t]`` or ``[k, t]``: 1 at the start, 0 at the end; ``[k, t]``."""
        saturating = self._saturating(epochs)
        if math.isinf(self.end):
            return saturating
        done = epochs / self.end
        scheduled = np.where(self.straight[:, None], 1 - done, (1 + np.cos(np.pi * done)) / 2)
        share = self.share[:, None]
        return (1 - share) * (saturating - self._at_the_end) / (1 - self._at_the_end) + share * scheduled

    def epoch_of(self, left: Array) -> Array:
        """Return the epochs ``[k]`` at which the part ``left [k]`` in 0..1 is left; at least 1% without an end."""
        low, high = np.zeros_like(left), np.minimum(self.end, ENDLESS * self.time_scale)
        for _ in range(32):  # bisection, because the part that is left decreases
            middle = (low + high) / 2
            later = self.left(middle[:, None])[:, 0] > left
            low, high = np.where(later, middle, low), np.where(later, high, middle)
        return (low + high) / 2

    @cached_property
    def _at_the_end(self) -> Array:
        return self._saturating(np.array([self.end]))  # [k, 1]

    def _saturating(self, epochs: Array) -> Array:
        units, c = epochs / self.time_scale[:, None], self.exponent[:, None]
        return np.where(np.isinf(c), np.exp(-units), (1 + units) ** -np.where(np.isinf(c), 1, c))


def curve_shapes(epochs: Array, end: float) -> tuple[CurveShapes, Array]:
    """Return all shapes, given the ``epochs [t]`` of the validations so far, and their prior probabilities ``[k]``.

    Time scales range from a tenth of the first validation to ten times the end (or twice the epochs so far).
    """
    horizon = end if math.isfinite(end) else 2 * epochs[-1] + 1
    first = epochs[epochs > 0][0] if (epochs > 0).any() else horizon
    shares: Sequence[tuple[float, bool, float]] = [(0.0, False, 1.0)]
    if math.isfinite(end):
        shares = [
            (share, straight, weight / 2 if share else weight)
            for share, weight in SCHEDULE_SHARES
            for straight in ((False, True) if share else (False,))
        ]
    time_scale, exponent, share, straight, weight = np.array(
        [
            (time_scale, exponent, share, straight, likely * weight)
            for time_scale in np.geomspace(0.1 * first, LONGEST * horizon, NUM_TIME_SCALES)
            for exponent, likely in EXPONENTS
            for share, straight, weight in shares
        ]
    ).T
    return CurveShapes(time_scale, exponent, share, straight.astype(bool), end), weight / weight.sum()
