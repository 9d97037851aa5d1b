"""Where an ensemble runs: on threads or on CUDA, here or on the workers of an executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.dynamics import Dynamics
from adjode.ensembles.executor import Distributed
from adjode.ensembles.threads import ThreadEnsemble, ThreadSolver, count_workers
from adjode.options import choose

BACKENDS = ("threads", "cuda")


@dataclass(frozen=True, eq=False)
class Engine:
    """The options that say where an ensemble runs, checked."""

    backend: str
    workers: int | None
    executor: Any
    chunks: int
    progress: bool

    def __post_init__(self) -> None:
        choose("backend", self.backend, BACKENDS)
        count_workers(self.workers)
        if not isinstance(self.chunks, (int, np.integer)) or self.chunks < 1:
            raise ValueError(f"chunks must be a positive integer, but {self.chunks!r} was given.")
        if self.executor is not None and not callable(getattr(self.executor, "submit", None)):
            raise TypeError(
                f"executor must have a method submit, as in concurrent.futures, but a {type(self.executor).__name__} was given."
            )

    def gradient(
        self, dynamics: Dynamics, loss: Any, wrt: Sequence[str], shared: frozenset[str], options: dict[str, Any]
    ) -> Callable[..., Any]:
        make = ThreadEnsemble if self.backend == "threads" else _from_cuda("CudaEnsemble")
        if self.executor is None:
            return make(dynamics, loss, wrt, shared, options, **self._keywords)
        data = loss if getattr(loss, "members", None) is not None else None
        arguments = dynamics, loss if data is None else data.part(0, 1), wrt, shared, options
        return self._distributed(make, arguments, data, shared & set(wrt))

    def solver(self, dynamics: Dynamics, times: np.ndarray, options: dict[str, Any]) -> Callable[..., Any]:
        make = ThreadSolver if self.backend == "threads" else _from_cuda("CudaSolver")
        arguments = dynamics, times, options
        return make(*arguments, **self._keywords) if self.executor is None else self._distributed(make, arguments)

    @property
    def _keywords(self) -> dict[str, Any]:
        return {"workers": self.workers} if self.backend == "threads" else {}

    def _distributed(self, make: Callable, arguments: tuple, data: Any = None, summed: frozenset[str] = frozenset()) -> Distributed:
        # an executor has a worker for each CPU, so a part runs on one thread unless more are asked for
        keywords = {name: value or 1 for name, value in self._keywords.items()}
        return Distributed(self.executor, self.chunks, make, arguments, keywords, data, summed)


def _from_cuda(name: str) -> Callable[..., Any]:
    try:
        from adjode.ensembles import cuda  # type: ignore[attr-defined]
    except ImportError as error:
        raise ImportError(
            f"backend='cuda' needs an NVIDIA GPU and numba-cuda, which the extra cuda brings (pip install 'adjode[cuda]'): {error}."
        ) from error
    return getattr(cuda, name)
