"""What every metric of this package honours of torchmetrics beyond its defaults: additive state, rebound and exact."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from lightning_leep.functional.joint import accumulation_dtype
from lightning_leep.metrics.reduction import sum_reducer


class AdditiveMetric(Metric):
    """Base of metrics whose tensor states add up over batches, merges and processes.

    States are rebound, never changed in place, because the members of a compute group share them by reference. List
    states stay on the process that saw them: a subclass that has some overrides :meth:`pool`.
    """

    is_differentiable: bool = False
    higher_is_better: bool = True
    full_state_update: bool = False

    #: Names of the states that are summed over processes before anything is computed from them.
    pooled_states: ClassVar[tuple[str, ...]] = ()

    def add_settings(self, *settings: int | None) -> None:
        """Make settings that change what ``update`` accumulates part of the state.

        torchmetrics forms compute groups from the equality of the states after the first batch. Two metrics that
        merely agree on that batch must not share their states afterwards.
        """
        encoded = [value for setting in settings for value in (int(setting is not None), int(setting or 0))]
        self.add_state("settings", torch.tensor(encoded, dtype=torch.long), dist_reduce_fx="max")

    def pool(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Bring the states of all processes together, given the function that sums a tensor over them."""
        for name in self.pooled_states:
            setattr(self, name, reduce(getattr(self, name)))

    def _sync_dist(self, dist_sync_fn: Callable = gather_all_tensors, process_group: Any | None = None) -> None:
        self.pool(sum_reducer(dist_sync_fn, process_group or self.process_group))

    def _copy_state_dict(self) -> dict[str, Tensor | list[Any]]:
        # States are rebound, so references suffice where torchmetrics clones every row at every `forward` and `sync`.
        return {
            name: list(state) if isinstance(state, Sequence) else state for name, state in self.metric_state.items()
        }

    def reset(self) -> None:
        """Return to the state before the first update; lists are replaced, since a compute group may share them."""
        for name, default in self._defaults.items():
            if isinstance(default, list):
                setattr(self, name, [])
        super().reset()

    def merge_state(self, incoming_state: "dict[str, Any] | Metric") -> None:
        """Add the state of another metric of the same class and settings.

        Args:
            incoming_state: The metric, or a dictionary of its states.

        Raises:
            TorchMetricsUserError: If one of the two is synchronised, since its state is that of all processes.
            ValueError: If a state is missing or has another shape or other settings.
        """
        if self._is_synced or (isinstance(incoming_state, Metric) and incoming_state._is_synced):
            raise TorchMetricsUserError("Metrics cannot be merged while synchronised. HINT: call `unsync` first.")
        states: Any = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        if isinstance(states, dict):
            for name, default in self._defaults.items():
                state = states.get(name)
                if state is None:
                    raise ValueError(f"`incoming_state` must hold the state `{name}`, got {sorted(states)}.")
                if not isinstance(default, Tensor):
                    continue
                if state.shape != default.shape:
                    raise ValueError(
                        f"`incoming_state` must hold `{name}` of shape {list(default.shape)}, got {list(state.shape)}."
                    )
                if name == "settings" and not torch.equal(state.to(default.device), default):
                    raise ValueError("`incoming_state` comes from a metric with other settings.")
        super().merge_state(incoming_state)
        # torchmetrics keeps the value computed before the merge.
        self._computed = None
        self._update_count += incoming_state._update_count if isinstance(incoming_state, Metric) else 1

    def set_dtype(self, dst_type: str | torch.dtype) -> "AdditiveMetric":
        """Return the metric as it is: sums stay in float64, counts in int64, whatever the model's precision."""
        return self

    def _apply(self, fn: Callable, exclude_state: Sequence[str] = "") -> torch.nn.Module:
        dtype = accumulation_dtype(fn(torch.zeros(1, device=self.device)).device)
        if dtype != torch.float64:
            stores: tuple[dict[str, Any], ...] = (self._defaults, self.__dict__)
            for store in stores:
                for name in self._defaults:
                    if isinstance(store[name], Tensor) and store[name].dtype == torch.float64:
                        store[name] = store[name].to(dtype)
        return super()._apply(fn, exclude_state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        loaded = any(prefix + name in state_dict for name in self._defaults)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if loaded:
            # Otherwise `compute` warns that it was called before `update`, or answers with the value of before.
            self._computed = None
            self._update_count = max(1, self._update_count)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or several, as every torchmetrics metric does (needs matplotlib).

        Args:
            val: A result of ``compute`` or ``forward``, or a list of them; ``compute()`` when None.
            ax: Matplotlib axes to draw on; a new figure when None.

        Returns:
            The figure and the axes.
        """
        return self._plot(val, ax)
