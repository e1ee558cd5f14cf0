"""What a scoring pass computes and how it reads a batch: one object for everything that scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict

from torch import Tensor

from lightning_leep.functional.inputs import check_flag, check_ignore_index
from lightning_leep.functional.permutation import check_num_permutations
from lightning_leep.scoring.pooling import POOLINGS, Pooling

#: A function from a batch to the inputs of the source model and the integer labels.
SplitBatch = Callable[[Any], tuple[Any, Tensor]]

Memory = Literal["device", "cpu", "second_pass"]
MEMORY_WAYS: tuple[Memory, ...] = ("device", "cpu", "second_pass")


@dataclass(frozen=True)
class ScoringOptions:
    """Options of a scoring pass, shared by :func:`~lightning_leep.score` and :class:`~lightning_leep.LEEPCallback`.

    Args:
        from_logits: Whether the source returns logits; False for probabilities.
        ignore_index: Label of the rows that are left out, as -100 in segmentation; None keeps all rows.
        split_batch: Function from a batch to ``(inputs, target)``. None reads pairs ``(inputs, target)`` and mappings
            with one of ``labels``, ``label``, ``targets`` and ``target``.
        class_dim: Dimension of the source's outputs that holds the classes; None for 1 or the last one, whichever fits
            the labels.
        head: Name of the source's last layer, such as ``"classifier.6"``; any layer may be named. The features are its
            input, averaged over space or tokens if it has no row for each label. None finds it among the layers with
            as many outputs as the source: the linear layer named ``fc``, ``classifier``, ``head`` or ``linear``, else
            the linear layer that runs last, else any module with one of these names. If none is found, or it runs more
            than once for a batch, the logits serve as features, and the report says so. False for a source without a
            head, whose outputs are features (``[N, d]``, or their ``image_embeds`` or ``pooler_output``): LEEP, the EEP
            and NCE are left out.
        layers: Layers of the source whose outputs are scored one by one and together: ``"auto"`` for the stem, the
            blocks and the input of the head (:func:`~lightning_leep.scoring.blocks.find_blocks`), names of modules
            (``"stem"`` is the input of the first block), or None for none. If they have more than 1024 features
            together, wide layers are projected at random.
        each_layer: Whether ``layers`` are scored one by one as well. False keeps what forecasts of fine-tuning start
            from, the probe on all of them together and, if the input of the head was projected, the scores of that; it
            leaves out the scores that advice on layers needs.
        pooling: How a layer's output becomes one row of features for each image or text. ``"auto"`` takes the mean over
            space or tokens (of those in ``attention_mask``), with the first or last token beside it if the head reads
            that one; ``"mean"`` the mean alone; ``"first"`` or ``"last"`` that token alone; or a function from the
            output to ``[n, d]``.
        memory: Where the source's outputs and features are kept until all rows are known: on the ``"device"`` that
            computed them or on the ``"cpu"``. ``"second_pass"`` keeps none and reads the data twice; it leaves out the
            permutation test and N-LEEP, and the data must give the same rows both times.
        num_permutations: How often the labels are shuffled for the permutation test of LEEP. 0 skips the test; at least
            19 shuffles are needed for a p-value of 0.05.
        feature_scores: Whether to compute the scores of features (H-score, LogME, linear probe), those of ``layers``
            included; without them the report has no estimate of the accuracy after training.
        nleep: Whether to compute N-LEEP as well. It needs scikit-learn and fits a mixture of 5 C Gaussians, which takes
            longer than all other scores together.

    Raises:
        TypeError: If ``split_batch`` is not a function, ``head`` is not a name or False, or ``layers`` are not names.
        ValueError: If another option has an impossible value, or ``nleep`` goes with ``memory="second_pass"`` or
            ``feature_scores=False``.

    Example:
        >>> ScoringOptions(ignore_index=-100, memory="cpu").memory
        'cpu'
    """

    from_logits: bool = True
    ignore_index: int | None = None
    split_batch: SplitBatch | None = None
    class_dim: int | None = None
    head: str | Literal[False] | None = None
    layers: Sequence[str] | None = "auto"
    each_layer: bool = True
    pooling: Pooling = "auto"
    memory: Memory = "device"
    num_permutations: int = 20
    feature_scores: bool = True
    nleep: bool = False

    def __post_init__(self) -> None:
        for name in ("from_logits", "each_layer", "feature_scores", "nleep"):
            check_flag(name, getattr(self, name))
        check_ignore_index(self.ignore_index)
        if self.split_batch is not None and not callable(self.split_batch):
            raise TypeError(f"`split_batch` must be a function or None, got {type(self.split_batch).__name__}.")
        if self.class_dim is not None and (
            isinstance(self.class_dim, bool) or not isinstance(self.class_dim, int) or self.class_dim == 0
        ):
            raise ValueError(f"`class_dim` must be an integer other than 0, or None, got {self.class_dim!r}.")
        if self.head is not None and self.head is not False and not isinstance(self.head, str):
            raise TypeError(f"`head` must be the name of a layer, False or None, got {type(self.head).__name__}.")
        if self.layers is not None and self.layers != "auto":
            object.__setattr__(self, "layers", _checked_names(self.layers))
        if not callable(self.pooling) and self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be one of {', '.join(POOLINGS)} or a function, got {self.pooling!r}.")
        if not isinstance(self.memory, str) or self.memory not in MEMORY_WAYS:
            raise ValueError(f"`memory` must be one of {', '.join(MEMORY_WAYS)}, got {self.memory!r}.")
        check_num_permutations(self.num_permutations)
        if self.head is False and not self.feature_scores:
            raise ValueError("`head=False` leaves only the scores of features, so `feature_scores` must be True.")
        if self.nleep and not self.keeps_rows:
            raise ValueError(
                "`nleep=True` needs the features of all rows, which `memory='second_pass'` does not keep. "
                "Pass another `memory`, or `nleep=False`."
            )
        if not self.feature_scores and self.layers not in (None, "auto"):
            raise ValueError(f"`layers={self.layers}` needs `feature_scores=True`, or pass `layers=None`.")
        if self.nleep and not self.feature_scores:
            raise ValueError("`nleep=True` needs features: pass `feature_scores=True`, or `nleep=False`.")

    @property
    def scored_layers(self) -> Sequence[str] | None:
        """``layers``, or None without feature scores."""
        return self.layers if self.feature_scores else None

    @property
    def keeps_rows(self) -> bool:
        """Whether outputs and features are kept, so that one pass over the data is enough."""
        return self.memory != "second_pass"


class OptionNames(TypedDict, total=False):
    """The same options as keyword arguments; :class:`ScoringOptions` explains them."""

    from_logits: bool
    ignore_index: int | None
    split_batch: SplitBatch | None
    class_dim: int | None
    head: str | Literal[False] | None
    layers: Sequence[str] | None
    each_layer: bool
    pooling: Pooling
    memory: Memory
    num_permutations: int
    feature_scores: bool
    nleep: bool


def _checked_names(layers: Any) -> tuple[str, ...]:
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not all(isinstance(name, str) for name in layers):
        raise TypeError(f"`layers` must be 'auto', a sequence of names of layers, or None, got {layers!r}.")
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"`layers` must name each layer once, and at least one, got {list(layers)}.")
    return tuple(layers)


def check_options(name: str, options: object) -> None:
    """Raise ``TypeError`` unless an argument holds ``ScoringOptions`` or None."""
    if options is not None and not isinstance(options, ScoringOptions):
        raise TypeError(f"`{name}` must be ScoringOptions or None, got {type(options).__name__}.")


def merged_options(options: ScoringOptions | None, flat: OptionNames) -> ScoringOptions:
    """The options with those that were given by name in their place."""
    check_options("options", options)
    return replace(options or ScoringOptions(), **flat)
