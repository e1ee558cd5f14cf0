"""Start real gloo processes from a test, and count what crosses between them."""

import gc
import multiprocessing as mp
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

#: Functions of torch.distributed that move tensors between processes.
COLLECTIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "broadcast",
    "gather",
    "irecv",
    "isend",
    "recv",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "send",
)


#: What the processes need, and what their tests import.
PRELOADED = ["torch.distributed", "lightning_leep.callbacks", "lightning.pytorch", "sklearn.mixture", "pytest"]
PRELOADED += ["matplotlib.figure", "tests._helpers.small_transfer", "tests._helpers.metric_cases"]


class ProcessFailedError(RuntimeError):
    """A process raised, died or did not end in time."""


def fork_server() -> Any:
    """The context of all processes that tests start.

    A fork of this process could inherit locks held by torch's threads; the fork server has none, and imports once.
    """
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run_processes(function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 90.0) -> list[Any]:
    """Run ``function(rank, world_size, *args)`` in ``world_size`` processes of one gloo group.

    The group is initialised (rendezvous through a file, so no port can be taken) and destroyed around the call.

    Args:
        function: Defined at the top of a module; what it returns must be picklable.
        world_size: Number of processes.
        args: Passed on; must be picklable.
        timeout: Seconds for all of it; the processes are killed afterwards.

    Returns:
        What the function returned, by rank.

    Raises:
        ProcessFailedError: With the traceback of the first process that failed, or when time ran out.
    """
    context = fork_server()
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            context.Process(target=_work, args=(function, rank, world_size, folder, timeout, args), daemon=False)
            for rank in range(world_size)
        ]
        for worker in workers:
            worker.start()
        try:
            _join(workers, Path(folder), time.monotonic() + timeout)
        finally:
            for worker in workers:
                if worker.is_alive():
                    worker.kill()
                worker.join()
        return [torch.load(Path(folder, f"result-{rank}"), weights_only=False) for rank in range(world_size)]


def _join(workers: list[Any], folder: Path, deadline: float) -> None:
    while any(worker.is_alive() for worker in workers):
        if any(worker.exitcode for worker in workers):
            break
        if time.monotonic() > deadline:
            alive = [rank for rank, worker in enumerate(workers) if worker.is_alive()]
            raise ProcessFailedError(f"Ranks {alive} did not end in time.")
        time.sleep(0.02)
    if any(worker.exitcode for worker in workers):
        # The first to fail wrote first; what the others say is that their peer is gone.
        reports = sorted(folder.glob("error-*"), key=lambda path: path.stat().st_mtime_ns)
        codes = [worker.exitcode for worker in workers]
        raise ProcessFailedError(reports[0].read_text() if reports else f"Exit codes {codes}, no traceback.")


def _work(
    function: Callable[..., Any], rank: int, world_size: int, folder: str, timeout: float, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # what the server imported need not be looked through for garbage
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/rendezvous",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout),
        )
        torch.save(function(rank, world_size, *args), Path(folder, f"result-{rank}"))
        dist.barrier()
        os._exit(0)  # gloo of torch 2.4 now and then hangs in its clean-up
    except BaseException:
        Path(folder, f"error-{rank}").write_text(f"Rank {rank} of {world_size}:\n{traceback.format_exc()}")
        os._exit(1)  # a group that lost a member may hang in its own clean-up


@contextmanager
def counted_traffic() -> Iterator[list[tuple[str, tuple[int, ...], int]]]:
    """Record ``(collective, shape, bytes)`` of every tensor this process hands to a collective within the block.

    A gather's output buffers count as well: they are what arrives.
    """
    sent: list[tuple[str, tuple[int, ...], int]] = []

    def counting(name: str, collective: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            for value in (*args, *kwargs.values()):
                tensors = value if isinstance(value, (list, tuple)) else [value]
                sent.extend((name, tuple(t.shape), t.nbytes) for t in tensors if isinstance(t, torch.Tensor))
            return collective(*args, **kwargs)

        return call

    modules = (dist, dist.distributed_c10d)
    patches = [
        mock.patch.object(module, name, counting(name, getattr(module, name)))
        for module in modules
        for name in COLLECTIVES
    ]
    for patch in patches:
        patch.start()
    try:
        yield sent
    finally:
        for patch in reversed(patches):
            patch.stop()
