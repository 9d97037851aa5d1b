"""A bar that counts trajectories."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def progress_bar(progress: bool, N: int) -> Iterator[Callable[[int], Any] | None]:
    """What to call with the number of trajectories just done; None if no bar is wanted."""
    if not progress:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=N, desc="ensemble", unit=" trajectories", unit_scale=True) as bar:
        yield bar.update
