"""How far a ranking has come: a bar over the sources and one over the batches of the current one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning_leep.ranking.data import SharedBatches
from lightning_leep.utils.checks import printable

Begin = Callable[[str, SharedBatches], None]


@contextmanager
def ranking_progress(num_sources: int, shown: bool) -> Iterator[Begin | None]:
    """Show both bars with the time left, on the terminal's error stream; None without rich, or if not ``shown``.

    It yields a function that is told of each source before it runs, with its batches.
    """
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield None
        return
    if not shown:
        yield None
        return
    text = TextColumn("{task.description}", markup=False)
    columns = text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
    console = Console(stderr=True)
    is_watched = console.is_terminal or console.is_jupyter
    with Progress(*columns, console=console, transient=True, disable=not is_watched) as progress:
        sources = progress.add_task("sources", total=num_sources)
        rows = progress.add_task("", total=None, visible=False)
        begun = 0

        def begin(name: str, batches: SharedBatches) -> None:
            nonlocal begun
            progress.update(sources, completed=begun)
            begun += 1
            progress.reset(rows, total=batches.length, visible=True, description=printable(name))
            batches.on_batch = lambda: progress.advance(rows)

        yield begin
        progress.update(sources, completed=num_sources)
