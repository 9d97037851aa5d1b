"""A line of progress with tqdm."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


def no_show(facts: dict[str, str], n_failed: int) -> None:
    """Show nothing."""


@contextlib.contextmanager
def progress_line(progress: bool, unit: str) -> Iterator[Callable[[dict[str, str], int], None]]:
    """`show(facts, n_failed)` counts one more and shows these; it does nothing unless that is wanted."""
    if not progress:
        yield no_show
        return
    from tqdm.auto import tqdm

    with tqdm(desc="fit", unit=f" {unit}") as line:

        def show(facts: dict[str, str], n_failed: int) -> None:
            line.set_postfix(facts | ({"failed": n_failed} if n_failed else {}), refresh=False)
            line.update()

        yield show
