"""What the first batch tells of a scoring pass, and what all processes must agree on before they pool anything."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from lightning_leep.records.report_notes import LOGITS
from lightning_leep.scoring.head import HeadInput, looks_new
from lightning_leep.scoring.layer_features import LayerColumns, layer_columns
from lightning_leep.scoring.layers import LayerOutputs
from lightning_leep.scoring.options import ScoringOptions
from lightning_leep.scoring.outputs import OutputReader, count_classes
from lightning_leep.scoring.source import Outputs
from lightning_leep.utils.distributed import gather_objects, on_every_process

#: Widest features that are scored: moments take 8 d^2 bytes, and their eigenvectors d^3 operations.
MAX_FEATURES = 4096
#: ``feature_layer`` of a source without a head.
EMBEDDING = "(the source's outputs)"
#: ``feature_layer`` when the head is the whole source, a bare linear layer.
WHOLE_SOURCE = "(the source itself)"


@dataclass(frozen=True)
class PassPlan:
    """What a pass scores. Each process proposes a plan after its first batch, and all continue with the common one."""

    num_target_classes: int  #: C; 0 to find it from the labels
    options: ScoringOptions  #: :meth:`agree` drops ``split_batch``, a function, which processes cannot compare
    classes_seen: int = 0  #: in the labels, where they were read before the source runs; else 0
    num_source_classes: int = 0  #: Z; 0 without a batch
    num_features: int = 0  #: d; 0 if no features are scored
    feature_layer: str | None = None  #: whose input is scored; ``LOGITS`` for the outputs; None for no features
    rows_per_image: int = 1  #: labels of one image; more than 1 with dense prediction
    single_output: bool = False  #: whether the source has one output, of which two source classes are made
    new_head: str = ""  #: the source's head, and why it looks as if it was never trained; empty if it does not
    headless: str = ""  #: name of the head's place in the source if it holds no layer; empty if it does
    classes_found: bool = False  #: whether C was found from the labels
    layers: tuple[LayerColumns, ...] = ()  #: whose outputs are scored, in the order in which they run
    layers_left_out: tuple[tuple[str, str], ...] = ()  #: whose outputs are not, with the reason
    num_parameters: int | None = None  #: of the source; None for a function
    layer_parameters: Mapping[str, int] = field(default_factory=dict)  #: of each layer, by name

    def with_batch(
        self, batch: Outputs | None, captured: HeadInput, reader: OutputReader, outputs: LayerOutputs
    ) -> "PassPlan":
        """Add what a first batch and its readers show."""
        if batch is None:
            return self
        rows_per_image = max(1, batch.target.shape[1:].numel())
        layers = layer_columns(batch.layers, outputs.reader.found)
        reason = looks_new(captured.layers.get(captured.name or ""))
        plan = replace(
            self,
            num_source_classes=batch.preds.shape[1],
            rows_per_image=rows_per_image,
            single_output=reader.single,
            headless=captured.headless,
            new_head=f"({captured.name or WHOLE_SOURCE}) looks new: {reason}" if reason else "",
            layers=layers,
            layer_parameters=outputs.parameters([layer.name for layer in layers], captured.name),
            layers_left_out=tuple(outputs.left_out.items()),
        )
        if batch.features is None or not self.options.feature_scores:
            return plan
        layer = EMBEDDING if self.options.head is False else captured.name or WHOLE_SOURCE
        return replace(plan, num_features=batch.features.shape[1], feature_layer=layer)

    def agree(self, device: torch.device) -> "PassPlan":
        """Compare the plans of all processes, which meet on ``device``, and return the common one.

        Without features of the same layer everywhere, or if these are too wide, the logits serve as features.
        ``ValueError``, on all processes, if arguments or numbers of source classes differ, or no process has a batch.
        """
        # Functions can be neither sent nor compared.
        pooling = None if callable(self.options.pooling) else self.options.pooling
        options = replace(self.options, split_batch=None, pooling=pooling or "auto")
        plans = dict(enumerate(gather_objects(replace(self, options=options), device)))
        _check_same("`num_target_classes`", {rank: plan.num_target_classes or None for rank, plan in plans.items()})
        for option in fields(ScoringOptions):
            _check_same(f"`{option.name}`", {rank: getattr(plan.options, option.name) for rank, plan in plans.items()})
        plans = {rank: plan for rank, plan in plans.items() if plan.num_source_classes}
        if not plans:
            raise ValueError("`dataloader` must hold at least one batch, got none.")
        widths = {rank: plan.num_source_classes for rank, plan in plans.items()}
        _check_same("The number of classes that `source` returns", widths)

        proposals = list(plans.values())
        first = proposals[0]
        layers = tuple(layer for layer in first.layers if all(layer in plan.layers for plan in proposals))
        differ = [(layer.name, "is not the same on all processes") for layer in first.layers if layer not in layers]
        common = replace(
            first,
            layers=layers,
            layers_left_out=(*first.layers_left_out, *differ),
            rows_per_image=max(plan.rows_per_image for plan in proposals),
            classes_seen=max(plan.classes_seen for plan in proposals),
        )
        features = {(plan.feature_layer, plan.num_features) for plan in proposals}
        if len(features) == 1 and 0 < common.num_features <= MAX_FEATURES:
            return common
        if common.options.head is False:
            raise ValueError(
                f"`source` must return at most {MAX_FEATURES} features, got {sorted(widths.values())[-1]}."
            )
        if common.num_source_classes <= MAX_FEATURES and common.options.feature_scores:
            return replace(common, feature_layer=LOGITS, num_features=common.num_source_classes)
        return replace(common, feature_layer=None, num_features=0)

    def read_classes(self, batches: Iterable[Outputs], device: torch.device) -> tuple["PassPlan", Iterable[Outputs]]:
        """Read all batches if C is not known; return the plan with C, the same on all processes, and the batches."""
        if self.num_target_classes:
            return self, batches
        found, kept = self.classes_seen, deque[Outputs]()
        if not found:

            def targets() -> Iterator[Tensor]:
                for batch in batches:
                    kept.append(batch.to(torch.device("cpu")) if self.options.memory == "cpu" else batch)
                    yield batch.target

            own = on_every_process(lambda: count_classes(targets(), self.options.ignore_index), device)
            found = max(1, *gather_objects(own, device))
        plan = replace(self, num_target_classes=found, classes_found=True)
        return plan, (kept.popleft() for _ in range(len(kept))) if kept else batches

    def remarks(self) -> list[str]:
        """What has to be said about the source's outputs, as sentences."""
        sentences = []
        if self.single_output:
            pair = "0 and that logit" if self.options.from_logits else "1 - p and p"
            sentences.append(
                f"The source has a single output: it is read as a binary classifier, whose two classes are {pair}."
            )
        if self.headless:
            sentences.append(
                f"The source's last layer ({self.headless}) is nn.Identity: the source seems to have no head, and its "
                "features were read as a classifier's outputs, so LEEP, the EEP and NCE say nothing. Pass `head=False`."
            )
        if self.new_head and self.num_source_classes == self.num_target_classes:
            sentences.append(
                f"The source's head {self.new_head}, and it has as many outputs as there are target classes. If it was "
                "replaced and not trained, LEEP, the EEP and NCE are those of random outputs: pass the source with its "
                "original head. The feature scores do not depend on it."
            )
        if self.classes_found:
            sentences.append(
                f"The number of target classes, {self.num_target_classes}, was found from the labels: the largest one "
                "plus 1."
            )
        return sentences

    def choose_features(self, batches: Iterable[Outputs]) -> Iterator[Outputs]:
        """Yield the batches with the features that are scored; ``ValueError`` if only some of them have any."""
        for batch in batches:
            if self.feature_layer is None:
                yield batch._replace(features=None)
            elif self.feature_layer == LOGITS:
                # A copy, since the source may reuse its memory. A class that is switched off (-inf) says nothing.
                yield batch._replace(features=batch.preds.masked_fill(batch.preds == -torch.inf, 0.0))
            elif batch.features is None:
                raise ValueError("The head of `source` gave features for one batch and none for another.")
            else:
                yield batch


def _check_same(what: str, values: Mapping[int, Any]) -> None:
    """Raise ``ValueError`` if processes, given by rank, have different values."""
    (first_rank, first), *others = values.items()
    for rank, value in others:
        if value != first:
            raise ValueError(
                f"{what} must be the same on all processes, "
                f"got {first!r} on process {first_rank} and {value!r} on process {rank}."
            )
