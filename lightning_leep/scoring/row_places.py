"""Outcomes of single rows, brought from all processes into the order of the data set."""

import torch
from torch import Tensor

from lightning_leep.functional.linear_probe import LinearProbe
from lightning_leep.metrics.linear_probe import MAX_ROW_OUTCOMES
from lightning_leep.records.row_outcomes import RowOutcomes, labels_checksum
from lightning_leep.utils.distributed import gather_objects


class RowPlaces:
    """Label and image of each labelled row that this process saw, in the order of the batches."""

    def __init__(self, ignore_index: int | None) -> None:
        self.ignore_index = ignore_index
        self.num_images = self.num_rows = 0
        self.labels: list[Tensor] = []
        self.images: list[Tensor] = []

    def add(self, target: Tensor) -> None:
        """Add a batch of labels ``[N]`` or ``[N, d1, ...]``; none once there are too many rows to keep outcomes of."""
        if self.num_rows > MAX_ROW_OUTCOMES:
            return
        labels = target.detach().reshape(-1).long().cpu()  # [N * d1 * ...]
        kept = torch.ones_like(labels, dtype=torch.bool) if self.ignore_index is None else labels != self.ignore_index
        self.num_rows += int(kept.sum())
        if self.num_rows > MAX_ROW_OUTCOMES:
            self.labels, self.images = [], []
            return
        images = torch.arange(len(target)).repeat_interleave(max(1, target.shape[1:].numel())) + self.num_images
        self.num_images += len(target)
        self.labels.append(labels[kept].int())
        self.images.append(images[kept].int())

    def outcomes(self, probe: LinearProbe, device: torch.device) -> RowOutcomes | None:
        """The outcomes of a probe on all processes, in the order of the data set; None if they were not kept.

        Process r of w has images r, r + w, r + 2 w, ... of the data set, as samplers divide it. Every process must call
        this.
        """
        if probe.row_correct is None or probe.row_log_likelihood is None:
            return None
        nothing = torch.empty(0, dtype=torch.int32)
        here = torch.cat([nothing, *self.images]), torch.cat([nothing, *self.labels])  # [m] each
        parts = gather_objects((*here, probe.row_correct, probe.row_log_likelihood), device)
        images, labels, correct, log_likelihood = (torch.cat(of_all) for of_all in zip(*parts, strict=True))  # [n] each
        rank = torch.cat([torch.full_like(part[0], rank) for rank, part in enumerate(parts)])
        order = (images * len(parts) + rank).argsort(stable=True)
        found = RowOutcomes(
            tuple(correct[order].tolist()),
            tuple(log_likelihood[order].tolist()),
            labels_checksum(labels[order].tolist()),
        )
        # In the precision of a file, so that a report that was kept gives the same ranking as this one.
        return RowOutcomes.from_dict(found.to_dict())
