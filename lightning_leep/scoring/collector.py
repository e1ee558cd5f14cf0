"""What a scoring pass accumulates, and the report that it ends in."""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_leep.functional.nleep import MAX_FIT_ROWS
from lightning_leep.functional.permutation import permutation_null
from lightning_leep.metrics import NLEEP, EEPScores, FeatureScores, NearestNeighbourAccuracy, NegativeConditionalEntropy
from lightning_leep.metrics.layer_scores import LAYER_SCORES, LayerScores
from lightning_leep.metrics.row_metric import RowMetric
from lightning_leep.records.layers import LayerScore
from lightning_leep.records.report import OUTPUT_SCORES, TransferabilityReport
from lightning_leep.records.report_notes import notes
from lightning_leep.scoring.first_batch import PassPlan
from lightning_leep.scoring.layer_features import LayerFeatures
from lightning_leep.scoring.outputs import ValuesSeen
from lightning_leep.scoring.row_places import RowPlaces
from lightning_leep.scoring.source import Outputs
from lightning_leep.utils.distributed import sum_over_processes, this_process

#: ``memory`` in the words of the report.
MEMORY_WORDS = {
    "device": "rows kept where they were computed",
    "cpu": "rows kept on the CPU",
    "second_pass": "no rows kept; the loader was read twice",
}


class ScoreCollector:
    """All scores of one pass: a joint with its rows, and the moments of the features with theirs."""

    def __init__(self, plan: PassPlan, device: torch.device) -> None:
        self.plan = plan
        self.device = device
        options = plan.options
        common: dict[str, Any] = {
            "num_target_classes": plan.num_target_classes,
            "ignore_index": options.ignore_index,
            "sync_on_compute": False,
        }
        rows: dict[str, Any] = {"keep_rows": options.keeps_rows, "compute_on_cpu": options.memory == "cpu"}
        outputs = {**common, "num_source_classes": plan.num_source_classes, "from_logits": options.from_logits}
        # The scores of the outputs check the labels. Features that are not finite turn the moments into NaN on all
        # processes alike, so that the feature scores are missing and the others are not affected.
        has_head = options.head is not False
        features: dict[str, Any] = {**common, "num_features": plan.num_features, "validate_args": not has_head}
        self.outputs = EEPScores(**outputs, **rows) if has_head else None
        self.features = FeatureScores(**features, **rows) if plan.num_features else None
        self.neighbours = NearestNeighbourAccuracy(**features) if plan.num_features else None
        self.nce = NegativeConditionalEntropy(**outputs, validate_args=False) if has_head else None
        self.nleep = NLEEP(**features) if options.nleep and plan.num_features else None
        self.widths = LayerFeatures(plan.layers).widths  #: of the layers, as they are kept
        # Forecasts need the probe on the head's own features as the probe on all layers has them.
        columns = zip(plan.layers, self.widths, strict=True)
        scored = [i for i, (c, kept) in enumerate(columns) if options.each_layer or (c.feeds_head and kept < c.width)]
        self.layers = LayerScores(widths=self.widths, scored=scored, **common, **rows) if plan.layers else None
        self.usable: list[int] = []  #: places of the layers that are scored, once they are
        self.values, self.places = ValuesSeen(), RowPlaces(options.ignore_index)
        for probe in (self.features, self.layers):
            if probe is not None:
                probe.keep_outcomes()
        fed: list[tuple[Any, str]] = [
            (self.outputs, "preds"),
            (self.features, "features"),
            (self.neighbours, "features"),
            (self.nce, "preds"),
            (self.layers, "layer_features"),
        ]
        self._fed = [(metric.to(device), name) for metric, name in fed if metric is not None]
        self.metrics: list[Metric] = [metric for metric, _ in self._fed]
        if self.nleep is not None:  # it takes over the features' rows
            self.metrics.append(self.nleep.to(device))

    def first_pass(self, batches: Iterable[Outputs]) -> None:
        """Add batches."""
        for batch in self.plan.choose_features(batches):
            batch = batch.to(self.device)  # back from the CPU, if they were kept there
            self.places.add(batch.target)
            if self.outputs is not None and self.plan.options.from_logits:
                self.values.add(batch.preds)
            for metric, name in self._fed:
                if (rows := getattr(batch, name)) is not None:
                    metric.update(rows, batch.target)

    def second_pass(self) -> Callable[[Iterable[Outputs]], None]:
        """Pool the sums of all processes and return the function that takes the same batches again."""
        scorers = [(metric.second_pass(sync=True), name) for metric, name in self._fed if isinstance(metric, RowMetric)]

        self.places = RowPlaces(self.plan.options.ignore_index)  # rows may come in another order now

        def second_pass(batches: Iterable[Outputs]) -> None:
            for batch in self.plan.choose_features(batches):
                self.places.add(batch.target)
                for score, name in scorers:
                    if (rows := getattr(batch, name)) is not None:
                        score(rows, batch.target)

        return second_pass

    def report(self, seconds: Callable[[], float]) -> TransferabilityReport:
        """Return the scores of the rows of all processes; ``seconds`` returns the wall time since the pass began."""
        plan = self.plan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a process may well have seen no batch
            null = self._permutation_null()
            misread = self.values.remarks(sum_over_processes(self.device), self.device, plan.single_output)
            if self.nleep is not None and self.features is not None:
                self.nleep.share_state(self.features)
            for metric in self.metrics:
                metric.sync()
            labelled = self.features if self.outputs is None else self.outputs
            assert labelled is not None  # a source without a head has features
            counts = labelled.class_counts.cpu()
            num_samples = int(counts.sum())
            if num_samples < 2:
                raise ValueError(f"The data must hold at least 2 labelled rows, got {num_samples}.")
            values = self._output_scores(num_samples, null) | self._feature_scores() | self._layer_scores()
        frequency = counts[counts > 0].double() / num_samples
        elapsed = seconds()
        report = TransferabilityReport(
            num_samples=num_samples,
            num_target_classes=plan.num_target_classes,
            class_counts=tuple(counts.tolist()),
            label_entropy=float(-(frequency * frequency.log()).sum()),
            num_features=plan.num_features or None,
            feature_layer=plan.feature_layer,
            rows_per_image=plan.rows_per_image,
            num_parameters=plan.num_parameters,
            memory=MEMORY_WORDS[plan.options.memory],
            seconds=elapsed,
            samples_per_second=num_samples / elapsed,
            **values,
        )
        remarks = notes(
            report,
            plan.options.feature_scores,
            MAX_FIT_ROWS if plan.options.nleep else None,
            misread=misread,
            remarks=plan.remarks(),
            layers_left_out=self._layers_left_out(),
        )
        object.__setattr__(report, "notes", remarks)  # nobody has seen the report yet
        return report

    def _output_scores(self, num_samples: int, null: Tensor | None) -> dict[str, Any]:
        if self.outputs is None or self.nce is None:
            return dict.fromkeys(OUTPUT_SCORES)
        if not self.plan.options.keeps_rows and int(self.outputs.score_sums[0, 0]) != num_samples:
            raise ValueError(
                f"`dataloader` must give the same rows twice for a second pass, got {num_samples} labelled rows "
                f"and then {int(self.outputs.score_sums[0, 0])}."
            )
        joint = self.outputs.joint.cpu()  # before `compute`, which gives this process's own state back
        values: dict[str, Any] = {name: float(value) for name, value in self.outputs.compute().items()}
        return {
            **values,
            **_null_fields(null, values["leep"]),
            "nce": _finite_or_none(self.nce.compute()),
            "num_source_classes": self.plan.num_source_classes,
            "joint": joint,
        }

    def _feature_scores(self) -> dict[str, Any]:
        if self.features is None:
            return {}
        found, probe = self.features.scores_and_probe()
        values: dict[str, Any] = {name: _finite_or_none(value) for name, value in found.items()}
        values["linear_probe_samples"] = int(values["linear_probe_samples"])
        if values["linear_probe_accuracy"] is not None:
            values["linear_probe_class_accuracy"] = tuple(_finite_or_none(value) for value in probe.class_accuracy)
            values["linear_probe_rows"] = self.places.outcomes(probe, self.device)
        if self.neighbours is not None and values["log_me"] is not None:  # the features are finite
            values["nearest_neighbour_accuracy"] = _finite_or_none(self.neighbours.compute())
        return values | {"nleep": None if self.nleep is None else _finite_or_none(self.nleep.compute())}

    def _layer_scores(self) -> dict[str, Any]:
        if self.layers is None:
            return {}
        self.usable = self.layers.usable_layers()  # before `compute`, which gives this process's own state back
        values = self.layers.compute()
        layers = []
        for place in self.usable:
            column = self.plan.layers[place]
            layers.append(
                LayerScore(
                    name=column.name,
                    width=column.width,
                    kept_width=self.widths[place],
                    feeds_head=column.feeds_head,
                    num_parameters=self.plan.layer_parameters.get(column.name),
                    **{name: _finite_or_none(values[name].reshape(-1)[place]) for name in LAYER_SCORES},
                )
            )
        together: dict[str, Any] = {
            name: _finite_or_none(value) for name, value in values.items() if name not in LAYER_SCORES
        }
        if together["multi_layer_probe_accuracy"] is not None:
            together["multi_layer_probe_rows"] = self.places.outcomes(self.layers.together, self.device)
        return together | {"layers": tuple(layers)}

    def _layers_left_out(self) -> list[tuple[str, str]]:
        reason = "is NaN, infinite or very large for some row, or not of the same width in every batch"
        bad = [(column.name, reason) for place, column in enumerate(self.plan.layers) if place not in self.usable]
        return [*self.plan.layers_left_out, *bad]

    def _permutation_null(self) -> Tensor | None:
        """Return LEEP of shuffled labels; None if no shuffles are wanted or no rows are kept."""
        outputs, (rank, world_size) = self.outputs, this_process()
        num_permutations = self.plan.options.num_permutations
        if outputs is None or not num_permutations or not self.plan.options.keeps_rows:
            return None
        return permutation_null(
            outputs.rows,
            outputs.labels,
            self.plan.num_target_classes,
            self.plan.num_source_classes,
            num_permutations,
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
    # A shuffle whose LEEP is the same up to rounding counts as one that is as high.
    as_high = int((null >= leep - 1e-9).sum())
    return {
        "permutation_mean": float(null.mean()),
        "permutation_standard_deviation": float(null.std()) if len(null) > 1 else 0.0,
        "permutation_p_value": (1 + as_high) / (1 + len(null)),
    }
