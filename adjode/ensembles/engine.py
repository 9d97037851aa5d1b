"""Where an ensemble runs: on threads or on CUDA, here or on the workers of an executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adjode.backends.executor import Distributed
from adjode.backends.threads import ThreadEnsemble, ThreadSolver, count_workers
from adjode.checks import choose
from adjode.model.dynamics import Dynamics

BACKENDS = ("threads", "cuda")
_DEVICE_OPTIONS = ("dtype", "device_output")


def split_options(backend: str, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the solver, and those of the backend of a GPU, whose `memory` is that of all trajectories."""
    of_device = {name: options[name] for name in _DEVICE_OPTIONS if name in options}
    if of_device and backend != "cuda":
        raise TypeError(f"{', '.join(of_device)}: an option of backend='cuda' only.")
    if backend == "cuda" and "memory" in options:
        of_device["memory"] = options["memory"]
    return {name: value for name, value in options.items() if name not in of_device}, of_device


@dataclass(frozen=True, eq=False)
class Engine:
    """The options that say where an ensemble runs, checked."""

    backend: str
    workers: int | None
    executor: Any
    chunks: int
    progress: bool
    device: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choose("backend", self.backend, BACKENDS)
        count_workers(self.workers)
        if not isinstance(self.chunks, (int, np.integer)) or self.chunks < 1:
            raise ValueError(f"chunks must be a positive integer, but {self.chunks!r} was given.")
        if self.executor is not None and self.device.get("device_output"):
            raise ValueError("device_output=True and executor= exclude each other: results of workers come through the host.")
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
    def takes_device_arrays(self) -> bool:
        return self.backend == "cuda" and self.executor is None

    @property
    def _keywords(self) -> dict[str, Any]:
        return {"workers": self.workers} if self.backend == "threads" else self.device

    def _distributed(self, make: Callable, arguments: tuple, data: Any = None, summed: frozenset[str] = frozenset()) -> Distributed:
        # an executor has a worker for each CPU, so a part runs on one thread unless more are asked for
        keywords = {"workers": self.workers or 1} if self.backend == "threads" else self.device
        return Distributed(self.executor, self.chunks, make, arguments, keywords, data, summed)


def _from_cuda(name: str) -> Callable[..., Any]:
    from adjode.backends.cuda import ensemble  # whose import says what is missing

    return getattr(ensemble, name)
