"""A callback that trains a network from one layer on, with learning rates that grow with depth."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lightning_leep.layers.cut import HEAD, frozen_parts
from lightning_leep.layers.groups import LearningRates, check_learning_rates, rate_factors
from lightning_leep.utils.trainer_callback import TrainerCallback

#: What optimizers and schedulers keep as one learning rate for each group of parameters.
RATES = {"lr", "initial_lr", "max_lr", "min_lr", "base_lrs", "max_lrs", "min_lrs", "_last_lr"}
#: What schedulers keep beside that for each group.
OTHERS = {"lr_lambdas", "base_momentums", "max_momentums"}


class LayerTransfer(TrainerCallback):
    """Freezes the layers before a given one, and can let later layers learn faster than earlier ones.

    Layers before ``trained_from`` need no gradient, and stay in evaluation mode, so that the statistics of their
    normalisation do not move either. They are frozen in ``setup``, before a strategy wraps the module and before the
    optimizers are built, and stay frozen until the end, so that no parameter becomes unused during training. The module
    must be complete by then (built in ``__init__``, not in ``configure_model``). A frozen copy of the network that the
    module keeps, such as the source of ``source_logits``, is left alone.

    With ``learning_rates`` the groups of each optimizer are split by layer once the optimizers are built, and the
    learning rates of optimizer and schedulers are multiplied by the factors of
    :func:`~lightning_leep.layers.rate_factors`. People who write ``configure_optimizers`` themselves can pass
    :func:`~lightning_leep.layers.layer_groups` to their optimizer instead. Checkpoints resume as usual, with the same
    callback in the Trainer.

    With a :class:`~lightning_leep.LEEPCallback` beside it, in any order, forecast and record are for the layers that
    are trained.

    Args:
        trained_from: Name of the first layer that is trained, as in the module or in the table of layers of a report
            ("layer3"); "head" for what follows the last block; None for all layers.
        learning_rates: A decay per block in (0, 1], or a mapping from names of layers to factors; None keeps the
            rates equal.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a decay or factor is out of range. A name that is not in the module is an error in ``setup``,
            which lists the blocks.

    Example:
        >>> callback = LayerTransfer("layer3", learning_rates=0.8)
    """

    def __init__(self, trained_from: str | None = None, learning_rates: LearningRates = None) -> None:
        if trained_from is not None and (not isinstance(trained_from, str) or not trained_from):
            raise TypeError(f"`trained_from` must be the name of a layer, {HEAD!r} or None, got {trained_from!r}.")
        check_learning_rates(learning_rates)
        self.trained_from = trained_from
        self.learning_rates = dict(learning_rates) if isinstance(learning_rates, Mapping) else learning_rates
        self._frozen: list[nn.Module] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Freeze what comes before ``trained_from``."""
        if stage != "fit" or self.trained_from is None:
            return
        self._frozen, parameters = frozen_parts(pl_module, self.trained_from)
        for parameter in [*parameters, *(p for part in self._frozen for p in part.parameters())]:
            parameter.requires_grad_(False)
        self._rest()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Divide the groups of the optimizers by layer, before a checkpoint restores their state."""
        if self.learning_rates is None:
            return
        factors = rate_factors(pl_module, self.learning_rates)
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        for optimizer in trainer.optimizers:
            places = _divide(optimizer, factors)
            for scheduler in schedulers:
                _follow(scheduler, optimizer, places)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Keep frozen layers in evaluation mode; a hook of the module may have called ``train()``."""
        self._rest()

    def _rest(self) -> None:
        for part in self._frozen:
            for layer in part.modules():
                layer.training = False


#: For each new group of an optimizer the place of the group that it was a part of, and its factor.
Places = list[tuple[int, float]]


def _divide(optimizer: Any, factors: Mapping[nn.Parameter, tuple[str, float]]) -> Places:
    """Divide each group of parameters into one for each factor; parameters of no known layer keep their rate."""
    groups: list[dict[str, Any]] = []
    places: Places = []
    for place, group in enumerate(optimizer.param_groups):
        parts: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            parts.setdefault(factors.get(parameter, ("", 1.0))[1], []).append(parameter)
        for factor, parameters in parts.items():
            scaled = {key: value * factor for key, value in group.items() if key in RATES}
            groups.append({**group, **scaled, "params": parameters})
            places.append((place, factor))
    optimizer.param_groups[:] = groups
    return places


def _follow(scheduler: Any, optimizer: Any, places: Places) -> None:
    """Give a scheduler, and those within it, one entry for each new group where it had one for each group before."""
    for inner in getattr(scheduler, "_schedulers", ()):
        _follow(inner, optimizer, places)
    if getattr(scheduler, "optimizer", None) is not optimizer:
        return
    num_groups = max(place for place, _ in places) + 1
    for name, values in vars(scheduler).items():
        is_each = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == num_groups
        if is_each and name in RATES | OTHERS:
            scaled = [values[place] * factor if name in RATES else values[place] for place, factor in places]
            setattr(scheduler, name, scaled)
