"""What a scoring pass accumulates, and the report that comes of it."""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_leep.functional.nleep import MAX_FIT_ROWS
from lightning_leep.functional.permutation import permutation_null
from lightning_leep.metrics import (
    NLEEP,
    EEPScores,
    FeatureScores,
    LEEPMetric,
    NegativeConditionalEntropy,
)
from lightning_leep.records.report import TransferabilityReport
from lightning_leep.records.report_notes import notes
from lightning_leep.scoring.memory import RowMemory
from lightning_leep.utils.distributed import sum_over_processes, this_process

#: Source outputs, features (None where there are none to score) and labels of one batch.
Outputs = tuple[Tensor, Tensor | None, Tensor]


class ScoreCollector:
    """All scores of one pass, over one joint and its rows, one set of feature moments and their rows.

    Args:
        num_target_classes: C.
        num_source_classes: Z.
        num_features: d; 0 leaves the feature scores out.
        from_logits: Whether source outputs are logits or probabilities.
        ignore_index: Label of the rows that are left out.
        memory: How rows are kept.
        num_permutations: Shuffles of the labels; 0 for none.
        nleep: Whether to compute N-LEEP, which needs scikit-learn and takes longer than the other scores together.
        device: Where the states are.
    """

    def __init__(
        self,
        num_target_classes: int,
        num_source_classes: int,
        num_features: int,
        from_logits: bool,
        ignore_index: int | None,
        memory: RowMemory,
        num_permutations: int,
        nleep: bool,
        device: torch.device,
    ) -> None:
        self.memory = memory
        self.num_permutations = num_permutations
        common: dict[str, Any] = {
            "num_target_classes": num_target_classes,
            "ignore_index": ignore_index,
            "sync_on_compute": False,
        }
        rows: dict[str, Any] = {
            "keep_rows": memory.keep_rows,
            "row_dtype": memory.dtype,
            "compute_on_cpu": memory.on_cpu,
        }
        outputs = {**common, "num_source_classes": num_source_classes, "from_logits": from_logits}
        # Labels are checked by the scores of the outputs. Features that are not finite make NaN of the moments, on all
        # processes alike: they take the feature scores with them and leave the others.
        features: dict[str, Any] = {**common, "num_features": num_features, "validate_args": False}
        self.outputs: EEPScores | LEEPMetric = (
            EEPScores(**outputs, **rows) if memory.top_k is None else LEEPMetric(**outputs, top_k=memory.top_k)
        )
        self.features = FeatureScores(**features, **rows) if num_features else None
        # Its rows are checked by the metric above.
        self.nce = NegativeConditionalEntropy(**outputs, validate_args=False)
        self.asked_for_nleep = nleep
        self.nleep: NLEEP | None = None
        if nleep and num_features:
            self.nleep = NLEEP(**features)
        self.metrics: list[Metric] = [m for m in (self.outputs, self.features, self.nce, self.nleep) if m is not None]
        for metric in self.metrics:
            metric.to(device)

    def first_pass(self, batches: Iterable[Outputs]) -> None:
        """Add batches."""
        for preds, features, target in batches:
            self.outputs.update(preds, target)
            self.nce.update(preds, target)
            if self.features is not None and features is not None:
                self.features.update(features, target)

    def second_pass(self) -> Callable[[Iterable[Outputs]], None]:
        """Pool the sums of all processes and return the function that takes the same batches again."""
        score_outputs = self._pooled_second_pass(self.outputs)
        score_features = None if self.features is None else self._pooled_second_pass(self.features)

        def second_pass(batches: Iterable[Outputs]) -> None:
            for preds, features, target in batches:
                score_outputs(preds, target)
                if score_features is not None and features is not None:
                    score_features(features, target)

        return second_pass

    @staticmethod
    def _pooled_second_pass(metric: EEPScores | LEEPMetric | FeatureScores) -> Callable[[Tensor, Tensor], None]:
        # The metrics leave synchronising to the report, but the second pass needs the sums of all processes now.
        metric._to_sync = True
        try:
            return metric.second_pass()
        finally:
            metric._to_sync = False

    def report(
        self, seconds: Callable[[], float], feature_layer: str | None, rows_per_image: int
    ) -> TransferabilityReport:
        """Scores of the rows of all processes.

        Args:
            seconds: Tells the wall time since the pass began.
            feature_layer: Where the features come from.
            rows_per_image: More than 1 with dense prediction.

        Raises:
            ValueError: If there are fewer than 2 labelled rows, or the second pass had other rows than the first.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a process may well have seen no batch
            null = self._permutation_null()
            if self.nleep is not None and self.features is not None:
                self.nleep.share_state(self.features)
            for metric in self.metrics:
                metric.sync()
            joint, counts = self.outputs.joint.cpu(), self.outputs.class_counts.cpu()
            num_samples = int(counts.sum())
            if num_samples < 2:
                raise ValueError(f"`dataloader` must hold at least 2 labelled rows, got {num_samples}.")
            if not self.memory.keep_rows and int(self.outputs.score_sums[0, 0]) != num_samples:
                raise ValueError(
                    f"`dataloader` must give the same rows twice for a second pass, got {num_samples} labelled rows "
                    f"and then {int(self.outputs.score_sums[0, 0])}."
                )
            values = self._output_scores() | self._feature_scores()
            values["nce"] = _finite_or_none(self.nce.compute())
        frequency = counts[counts > 0].double() / num_samples
        elapsed = seconds()
        report = TransferabilityReport(
            num_samples=num_samples,
            num_target_classes=self.outputs.num_target_classes,
            num_source_classes=self.outputs.num_source_classes,
            class_counts=tuple(counts.tolist()),
            label_entropy=float(-(frequency * frequency.log()).sum()),
            num_features=None if self.features is None else self.features.num_features,
            feature_layer=feature_layer,
            rows_per_image=rows_per_image,
            memory=self.memory.description,
            seconds=elapsed,
            samples_per_second=num_samples / elapsed,
            joint=joint,
            **values,
            **_null_fields(null, values["leep"]),
        )
        return replace(report, notes=notes(report, nleep_rows=MAX_FIT_ROWS if self.asked_for_nleep else None))

    def _output_scores(self) -> dict[str, Any]:
        if isinstance(self.outputs, EEPScores):
            return {name: float(value) for name, value in self.outputs.compute().items()}
        leep, low, high = (float(value) for value in self.outputs.estimate_and_bounds())
        unknown = ("leep_standard_error", "leave_one_out_leep", "leave_one_out_leep_standard_error")
        accuracy = ("eep_accuracy", "eep_accuracy_standard_error")
        return {"leep": leep, "leep_low": low, "leep_high": high} | dict.fromkeys((*unknown, *accuracy), math.nan)

    def _feature_scores(self) -> dict[str, Any]:
        if self.features is None:
            return {}
        values: dict[str, Any] = {name: _finite_or_none(value) for name, value in self.features.compute().items()}
        values["linear_probe_samples"] = int(values["linear_probe_samples"])
        return values | {"nleep": None if self.nleep is None else _finite_or_none(self.nleep.compute())}

    def _permutation_null(self) -> Tensor | None:
        """LEEP of shuffled labels, where the rows are at hand."""
        outputs, (rank, world_size) = self.outputs, this_process()
        if not self.num_permutations or not self.memory.keep_rows or self.memory.top_k is not None:
            return None
        return permutation_null(
            outputs.rows,
            outputs.labels,
            outputs.num_target_classes,
            outputs.num_source_classes,
            self.num_permutations,
            reduce=sum_over_processes(outputs.device),
            rank=rank,
            world_size=world_size,
        )


def _finite_or_none(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _null_fields(null: Tensor | None, leep: float) -> dict[str, Any]:
    if null is None:
        return {}
    # A shuffle that gives the same LEEP up to rounding counts as one that is as high.
    as_high = int((null >= leep - 1e-9).sum())
    return {
        "permutation_mean": float(null.mean()),
        "permutation_standard_deviation": float(null.std()) if len(null) > 1 else 0.0,
        "permutation_p_value": (1 + as_high) / (1 + len(null)),
    }
