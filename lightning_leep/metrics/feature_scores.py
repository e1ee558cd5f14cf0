"""Everything that the features say, from one state."""

from torch import Tensor

from lightning_leep.functional.h_score import h_score_from_moments
from lightning_leep.functional.log_me import log_me_from_moments
from lightning_leep.metrics.linear_probe import LinearProbeAccuracy


class FeatureScores(LinearProbeAccuracy):
    """H-score with and without shrinkage, LogME and the leave-one-out linear probe together.

    Takes the arguments of its base. ``compute`` returns a dictionary of 0-d tensors: ``h_score``,
    ``h_score_unshrunk``, ``log_me``, ``linear_probe_accuracy``, ``linear_probe_accuracy_standard_error``,
    ``linear_probe_log_likelihood``, ``linear_probe_samples`` and ``linear_probe_shrinkage``.
    """

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Scores of all rows seen so far, on all processes."""
        probe = self.result_here()
        return {
            "h_score": h_score_from_moments(self.moments),
            "h_score_unshrunk": h_score_from_moments(self.moments, shrinkage=False),
            "log_me": log_me_from_moments(self.moments),
            "linear_probe_accuracy": probe.accuracy,
            "linear_probe_accuracy_standard_error": probe.standard_error,
            "linear_probe_log_likelihood": probe.log_likelihood,
            "linear_probe_samples": probe.num_rows,
            "linear_probe_shrinkage": probe.shrinkage,
        }
