"""A progress bar that does nothing while something is timed."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial


@contextlib.contextmanager
def benchmark_progress(total: int, show: bool | None) -> Iterator[Callable[[str], None]]:
    """Gives `advance(what comes next)`.

    The bar is drawn in that call and at no other time: a thread that redraws it ten times a second would be measured too.

    Args:
        total: number of calls expected.
        show: None shows it when stderr is a terminal.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:  # a log: one line per step of the work, not per round
        yield partial(_say_once, console, set())
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("benchmark", total=total)

        def advance(text: str) -> None:
            bar.update(task, advance=1, description=text, refresh=True)

        yield advance


def _say_once(console, said: set[str], text: str) -> None:
    if text not in said:
        said.add(text)
        console.print(text, markup=False, highlight=False)
