"""The base of every metric here: states that add up, are never changed in place and survive every error."""

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn
from torchmetrics.utilities.distributed import gather_all_tensors
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from lightning_leep.functional.chunks import accumulation_dtype
from lightning_leep.utils.distributed import sum_reducer

# The metrics of this package use these internals, tested with torchmetrics 1.7.0 and 1.9.0 and torch 2.13.0:
# - overridden, of Metric: _wrap_update, _sync_dist, _copy_state_dict, _reduce_states
# - overridden, of nn.Module: _apply (Metric overrides it too and takes `exclude_state`), _load_from_state_dict
# - called, of Metric: _plot
# - read or set, of Metric: _defaults, _computed, _cache, _update_count, _is_synced, _to_sync


class AdditiveMetric(Metric):
    """Base of metrics whose tensor states add up over batches, merges and processes.

    States are rebound, never changed in place, because the members of a compute group share them by reference. List
    states stay on the process that saw them; a subclass that has some overrides :meth:`pool`. A call that raises an
    error leaves the metric as it was before the call.
    """

    is_differentiable: bool = False
    higher_is_better: bool = True
    full_state_update: bool = False

    #: Names of the states that are summed over processes before anything is computed from them.
    pooled_states: ClassVar[tuple[str, ...]] = ()
    #: Whether rows are list states. There is then a state ``score_sums``, which is 0 until it is pooled.
    keep_rows: bool = False

    def add_settings(self, *settings: int | None, name: str = "settings") -> None:
        """Add a state that holds the settings that change what ``update`` adds up; its name must end in "settings".

        torchmetrics puts metrics into one compute group if their states are equal after the first batch. Metrics with
        different settings may agree on that batch, but must not share their states.
        """
        encoded = [value for setting in settings for value in (int(setting is not None), int(setting or 0))]
        self.add_state(name, torch.tensor(encoded, dtype=torch.long), dist_reduce_fx="max")

    def pool(self, reduce: Callable[[Tensor], Tensor], gather: Callable[[Tensor], list[Tensor]]) -> None:
        """Replace the states by those of all processes: ``reduce`` sums a tensor over them, ``gather`` lists theirs."""
        for name in self.pooled_states:
            setattr(self, name, reduce(getattr(self, name)))

    @contextmanager
    def _all_or_nothing(self) -> Generator:
        # torchmetrics counts an update before `update` accepts the batch, and `forward` empties the state first. As
        # states are rebound, references to the old ones suffice to restore them.
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).update(before)
            raise

    def _wrap_update(self, update: Callable[..., Any]) -> Callable[..., Any]:
        wrapped = super()._wrap_update(update)

        @functools.wraps(wrapped)
        def restoring(*args: Any, **kwargs: Any) -> Any:
            with self._all_or_nothing():
                return wrapped(*args, **kwargs)

        return restoring

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add one batch and return the value of that batch alone, in the form that ``compute`` returns."""
        with self._all_or_nothing():
            return super().forward(*args, **kwargs)

    @contextmanager
    def sync_context(self, *args: Any, **kwargs: Any) -> Generator:
        """Synchronise within the block, as torchmetrics does, and restore the local state, even after an error."""
        with self._all_or_nothing(), super().sync_context(*args, **kwargs):
            yield

    def _sync_dist(self, dist_sync_fn: Callable = gather_all_tensors, process_group: Any | None = None) -> None:
        group = process_group or self.process_group
        with self._all_or_nothing():
            self.pool(sum_reducer(dist_sync_fn, group), lambda value: dist_sync_fn(value, group=group))

    def _copy_state_dict(self) -> dict[str, Tensor | list[Any]]:
        # torchmetrics clones every row at each `forward` and `sync`. References suffice, as states are rebound.
        return self.metric_state

    def reset(self) -> None:
        """Return to the state before the first update. Lists are replaced, since a compute group may share them."""
        for name, default in self._defaults.items():
            if isinstance(default, list):
                setattr(self, name, [])
        super().reset()

    def check_states(self, states: dict[str, Any]) -> None:
        """Raise ``ValueError`` unless ``states`` fit this metric and are not synchronised."""
        for name, default in self._defaults.items():
            if name not in states:
                raise ValueError(f"`{name}` is missing from the states {sorted(states)}.")
            state = states[name]
            if isinstance(default, list):
                if not isinstance(state, list):
                    raise ValueError(f"The state `{name}` must be a list of tensors, got {type(state).__name__}.")
            elif not isinstance(state, Tensor) or state.shape != default.shape:
                got = list(state.shape) if isinstance(state, Tensor) else type(state).__name__
                raise ValueError(f"The state `{name}` must be a tensor of shape {list(default.shape)}, got {got}.")
            elif name.endswith("settings") and not torch.equal(state.to(default.device), default):
                raise ValueError("The states come from a metric with other settings.")
        sizes = {name: len(states[name]) for name, default in self._defaults.items() if isinstance(default, list)}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"The states hold {' and '.join(f'{size} `{name}`' for name, size in sizes.items())}.")
        if self.keep_rows and bool(states["score_sums"].any()):
            raise ValueError("The states come from a synchronised metric, which no longer has its rows.")

    def merge_state(self, incoming_state: "dict[str, Any] | Metric") -> None:
        """Add the state of another metric of the same class and settings, or a dictionary of its states.

        ``TorchMetricsUserError`` if one of the two is synchronised: its state is that of all processes; ``ValueError``
        if it is neither, or if a state is missing or has another shape or other settings.
        """
        if self._is_synced or (isinstance(incoming_state, Metric) and incoming_state._is_synced):
            raise TorchMetricsUserError("Metrics cannot be merged while synchronised. HINT: call `unsync` first.")
        if not isinstance(incoming_state, (dict, type(self))):
            raise ValueError(
                f"`incoming_state` must be a {type(self).__name__} or a dictionary of its states, "
                f"got {type(incoming_state).__name__}."
            )
        states = incoming_state if isinstance(incoming_state, dict) else incoming_state.metric_state
        self.check_states(states)
        self._reduce_states({k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in states.items()})
        # torchmetrics keeps the value computed before the merge.
        self._computed = None
        self._update_count += incoming_state._update_count if isinstance(incoming_state, Metric) else 1

    def _apply(self, fn: Callable, exclude_state: Sequence[str] = "") -> torch.nn.Module:
        # `module.to(torch.bfloat16)` converts every metric inside the module. Sums stay in float64, counts in int64
        # and rows in the dtype they came in.
        device = fn(torch.zeros(1, device=self.device)).device
        dtype = accumulation_dtype(device)

        def move(tensor: Tensor) -> Tensor:
            if tensor.dtype == torch.float64:
                tensor = tensor.to(dtype)  # the new device may have no float64
            moved: Tensor = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(device)

        moved = super()._apply(move, exclude_state)
        stores: tuple[dict[str, Any], ...] = (self._defaults, vars(self))
        for store in stores:
            for name in self._defaults:
                if isinstance(store[name], Tensor) and store[name].is_floating_point():
                    store[name] = store[name].to(dtype)  # sums that return from such a device are float32
        return moved

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The last argument is the list of error messages.
        states = {name: state_dict.pop(prefix + name) for name in self._defaults if prefix + name in state_dict}
        if states:
            try:
                self.check_states(states)
            except ValueError as error:
                rest[-1].append(f"{type(self).__name__}: {error}")
                return
            for name, state in states.items():
                default = self._defaults[name]
                setattr(self, name, state.to(default) if isinstance(default, Tensor) else list(state))
            # Otherwise `compute` warns that `update` was never called, or returns the value from before.
            self._computed, self._cache, self._is_synced = None, None, False
            self._update_count = max(1, self._update_count)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot ``compute()``, or given results, on Matplotlib axes; return the figure and the axes."""
        return self._plot(val, ax)


def nan_for_too_few_rows(metric: Metric, num_rows: int, minimum: int = 2) -> Tensor:
    """0-d NaN, with a warning that names the metric. An error would end a loop over batches at the first small one."""
    rank_zero_warn(
        f"{type(metric).__name__} needs at least {minimum} rows to say anything, got {num_rows}; it returns NaN.",
        UserWarning,
    )
    return torch.full((), torch.nan, dtype=accumulation_dtype(metric.device), device=metric.device)
