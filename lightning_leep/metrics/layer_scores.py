"""Feature scores of many layers at once, and the linear probe on all of them, from one state."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_leep.functional.chunks import row_chunks
from lightning_leep.functional.feature_space import space_of_moments
from lightning_leep.functional.h_score import h_score_of_space
from lightning_leep.functional.inputs import largest_feature
from lightning_leep.functional.linear_discriminant import linear_discriminant
from lightning_leep.functional.linear_probe import (
    NUM_CANDIDATES,
    LinearProbe,
    enough_candidates,
    linear_probe_result,
    linear_probe_sums,
)
from lightning_leep.functional.log_me import log_me_of_space
from lightning_leep.functional.moments import FeatureMoments, central_moments
from lightning_leep.metrics.linear_probe import LinearProbeAccuracy
from lightning_leep.metrics.row_metric import RowMetric, RowScorer

#: Scores of each layer.
LAYER_SCORES = ("probe_accuracy", "probe_standard_error", "h_score", "log_me")


class LayerScores(LinearProbeAccuracy):
    """Linear probe, H-score and LogME of each of L layers, and the linear probe on the features of all of them.

    ``update`` takes the layers' features side by side, ``[N, D]``, and their labels, whose values are not checked. The
    moments of all features are one state, in which each layer has a diagonal block. A layer that is NaN, infinite or
    too large for any row is left out, and does not touch the others.

    ``compute`` returns a dictionary of tensors ``[L]``: ``probe_accuracy``, ``probe_standard_error``, ``h_score`` and
    ``log_me``, NaN for layers that are left out; and, 0-d, ``multi_layer_probe_accuracy`` and
    ``multi_layer_probe_standard_error``. ``widths`` are the numbers of features of the layers, D together; ``scored``
    the places of those that are scored one by one, None for all. The other arguments are those of
    :class:`~lightning_leep.metrics.linear_probe.LinearProbeAccuracy`.
    """

    pooled_states: ClassVar[tuple[str, ...]] = ("unusable",)
    unusable: Tensor
    together: LinearProbe  #: on all layers, once computed

    def __init__(
        self, num_target_classes: int, widths: Sequence[int], scored: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        self.scored = range(len(widths)) if scored is None else scored
        self.columns = [slice(start, end) for start, end in pairwise(accumulate(widths, initial=0))]  #: of each layer
        super().__init__(num_target_classes, sum(widths), validate_args=False, **kwargs)

    def add_states(self) -> None:
        """Add the states."""
        super().add_states()
        num_layers, probe_size = len(self.columns), (2 + self.num_target_classes) * NUM_CANDIDATES
        # Of the probe on all layers and that of each, then the sum of the fourth powers of each layer's rows.
        size = (1 + num_layers) * probe_size + num_layers
        self.add_state("score_sums", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("unusable", torch.zeros(num_layers, dtype=torch.long), dist_reduce_fx="sum")  # batches
        self.add_settings(*(columns.stop for columns in self.columns), name="layer_settings")

    def prepare(self, features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Check a batch and bring it to features ``[m, D]``, with 0 for layers that cannot be used, and labels."""
        rows, labels = super().prepare(features, target)  # [m, D], [m]
        largest = min(largest_feature(rows.device), torch.finfo(rows.dtype).max)  # not infinity, rounded to their dtype
        usable = (rows.abs() <= largest).all(dim=0)  # [D]
        if bool(usable.all()):
            return rows, labels
        rows = rows.clone()
        for layer, columns in enumerate(self.columns):
            if not bool(usable[columns].all()):
                rows[:, columns] = 0.0
                self.unusable = self.unusable.index_add(0, *torch.tensor([[layer], [1]], device=self.device))
        return rows, labels

    def usable_layers(self) -> list[int]:
        """Places of the layers that can be used, by what is known so far."""
        return (self.unusable == 0).nonzero().flatten().tolist()

    def scored_layers(self) -> list[int]:
        """Places of the layers that are scored one by one."""
        return [layer for layer in self.usable_layers() if layer in self.scored]

    def row_scorer(self) -> RowScorer:
        """Scores of a row on all layers and on each, under every candidate, given the moments of all rows."""
        central, layers, num_layers = central_moments(self.moments), self.usable_layers(), len(self.columns)
        scored = self.scored_layers()
        parts: list[slice | Tensor] = [self.columns[layer] for layer in scored]
        if layers:  # the probe on all comes first
            places = torch.arange(self.num_features, device=self.device)
            usable = torch.cat([places[self.columns[layer]] for layer in layers])
            parts.insert(0, slice(None) if len(layers) == num_layers else usable)
        spaces = (space_of_moments(_moments_of(central, part)) for part in parts)
        discriminants = [linear_discriminant(space) for space in spaces]
        num_rows = int(self.class_counts.sum())
        tried = [enough_candidates(num_rows, len(discriminant.basis)) for discriminant in discriminants]
        mean = central.centre  # [D]
        member = torch.block_diag(*(mean.new_ones(part.stop - part.start, 1) for part in self.columns))  # [D, L]

        def score(rows: Tensor, target: Tensor) -> Tensor:
            probes = mean.new_zeros(1 + num_layers, 2 + self.num_target_classes, NUM_CANDIDATES)
            for place, part, discriminant, few in zip([-1, *scored], parts, discriminants, tried, strict=False):
                of_rows = self.new_outcomes(target) if place == -1 else None
                probes[1 + place] = linear_probe_sums(rows[:, part], target, discriminant, few, of_rows)
            quartic = mean.new_zeros(num_layers)
            for chunk, _ in row_chunks(rows, target) if scored else ():
                norms = (chunk - mean).square_() @ member  # [m, D] @ [D, L]
                quartic += norms.square_().sum(dim=0)
            return torch.cat([probes.flatten(), quartic])

        return score

    def total_scores(self) -> Tensor:
        """Sums of the scores: pooled ones and those of the rows here."""
        return RowMetric.total_scores(self)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Scores of all rows seen so far, on all processes."""
        num_layers = len(self.columns)
        sums, counts = self.total_scores(), self.class_counts * bool(self.usable_layers())
        self.check_second_pass()
        probes, quartic = sums[:-num_layers].view(1 + num_layers, -1, NUM_CANDIDATES), sums[-num_layers:]
        found = {name: sums.new_full((num_layers,), torch.nan) for name in LAYER_SCORES}
        central = central_moments(self.moments)
        for layer in self.scored_layers():
            probe = linear_probe_result(probes[1 + layer], counts)
            space = space_of_moments(_moments_of(central, self.columns[layer], quartic[layer]))
            scores = (probe.accuracy, probe.standard_error, h_score_of_space(space), log_me_of_space(space))
            for name, score in zip(LAYER_SCORES, scores, strict=True):
                found[name][layer] = score
        self.together = self.with_outcomes(linear_probe_result(probes[0], counts), probes[0])
        found["multi_layer_probe_accuracy"] = self.together.accuracy
        found["multi_layer_probe_standard_error"] = self.together.standard_error
        return found


def _moments_of(central: FeatureMoments, columns: slice | Tensor, quartic: Tensor | None = None) -> FeatureMoments:
    """Moments of some columns about their mean; ``quartic`` replaces the moment of fourth order."""
    return FeatureMoments(
        centre=central.centre[columns],
        class_counts=central.class_counts,
        class_sums=central.class_sums[:, columns],
        scatter=central.scatter[columns][:, columns],
        cubic=torch.zeros_like(central.centre[columns]),  # it matters where the centre is not the mean
        quartic=central.quartic if quartic is None else quartic.to(central.quartic),
    )
