"""Everything that the features say, from one state."""

from typing import Any

import torch
from torch import Tensor

from lightning_leep.functional.feature_space import FeatureSpace
from lightning_leep.functional.h_score import h_score_of_space
from lightning_leep.functional.log_me import log_me_of_space
from lightning_leep.metrics.linear_probe import LinearProbeAccuracy


class FeatureScores(LinearProbeAccuracy):
    """H-score with and without shrinkage, LogME and the leave-one-out linear probe together.

    Takes the arguments of its base. ``compute`` returns a dictionary of 0-d tensors: ``h_score``,
    ``h_score_unshrunk``, ``log_me``, ``linear_probe_accuracy``, ``linear_probe_accuracy_standard_error``,
    ``linear_probe_balanced_accuracy``, ``linear_probe_log_likelihood``, ``linear_probe_samples`` and
    ``linear_probe_shrinkage``; and ``linear_probe_class_accuracy``, ``[C]``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._space: tuple[Tensor, FeatureSpace] | None = None

    def space(self) -> FeatureSpace:
        """What scores are computed from, kept until ``compute`` has used it."""
        if self._space is None or self._space[0] is not self.scatter:  # states are rebound, never changed
            self._space = self.scatter, super().space()
            _ = self._space[1].spectrum  # that the other scores need: the probe makes use of it as well
        return self._space[1]

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Scores of all rows seen so far, on all processes."""
        probe = self.result_here()
        nothing = torch.full_like(self.quartic, torch.nan)
        space = self.space() if self.moments.is_finite else None
        self._space = None
        return {
            "h_score": nothing if space is None else h_score_of_space(space),
            "h_score_unshrunk": nothing if space is None else h_score_of_space(space, shrinkage=False),
            "log_me": nothing if space is None else log_me_of_space(space),
            "linear_probe_accuracy": probe.accuracy,
            "linear_probe_accuracy_standard_error": probe.standard_error,
            "linear_probe_balanced_accuracy": probe.balanced_accuracy,
            "linear_probe_class_accuracy": probe.class_accuracy,
            "linear_probe_log_likelihood": probe.log_likelihood,
            "linear_probe_samples": probe.num_rows,
            "linear_probe_shrinkage": probe.shrinkage,
        }
