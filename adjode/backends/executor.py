"""Ensembles on other processes and machines, through anything shaped like an executor of `concurrent.futures`.

Parts of the ensemble go out as whole blocks, with the problem as bytes: a worker unpacks and compiles it once, and keeps it under
the hash of the bytes. Partial sums of the blocks come back, so that the sum is taken in the order of one machine.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import queue
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from adjode.backends.outcome import block_size, count_rows

_ATTEMPTS = 3  # at a part whose worker dies
_PART_BYTES = 1 << 26  # of inputs, about: what is larger is sent in more parts
_KEPT_PROBLEMS = 8  # that a worker keeps ready


@dataclass(frozen=True, eq=False)
class Part:
    """Trajectories first..stop-1, with their arguments of the backend."""

    first: int
    stop: int
    rows: tuple[np.ndarray, ...]
    keywords: dict[str, Any]


def run_part(problem: bytes, part: Part, attempt: int) -> tuple[str, Any]:
    """What a worker does: ("done", the backend's result), or ("failed", what it raised).

    Whatever the executor raises beside that is no fault of the problem's; `attempt` tells repeated calls apart.
    """
    try:
        return "done", _prepared(hashlib.sha256(problem).hexdigest(), problem)(*part.rows, **part.keywords)
    except Exception as error:
        return "failed", error


_ready: dict[str, Callable[..., Any]] = {}
_unpacking = threading.RLock()  # where workers are threads, one unpacks for all


def _prepared(key: str, problem: bytes) -> Callable[..., Any]:
    with _unpacking:
        if key not in _ready:
            make, arguments, keywords = _cloudpickle().loads(problem)
            while len(_ready) >= _KEPT_PROBLEMS:
                _ready.pop(next(iter(_ready)), None)
            _ready[key] = make(*arguments, **keywords)
        return _ready[key]


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError:
        raise ImportError("executor= needs cloudpickle, to send callbacks to workers: pip install 'adjode[distributed]'.") from None
    return cloudpickle


def packed(make: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bytes:
    """The problem whose backend `make(*arguments, **keywords)` is, as bytes."""
    return _cloudpickle().dumps((make, arguments, keywords))


class Distributed:
    """A backend whose parts run on the workers of an executor.

    Parameters
    ----------
    executor : object with `submit(function, *arguments)`, which returns futures
    chunks : int
        How many parts to make at least, and to have under way at most.
    make, arguments, keywords
        The backend, made by each worker.
    data : MemberData or None
        A loss with data for each trajectory, which are sent with these.
    summed : set of {"u0", "theta"}
        What the partial sums are taken of.
    """

    def __init__(
        self,
        executor: Any,
        chunks: int,
        make: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        data: Any,
        summed: frozenset[str],
    ):
        self._executor, self._chunks, self._data, self._summed = executor, chunks, data, summed
        self._make, self._arguments, self._keywords = make, arguments, keywords
        self._problem = packed(make, arguments, keywords)
        self._cost: np.ndarray | None = None  # steps of each trajectory, in the last call

    def __call__(
        self,
        u0: np.ndarray,
        theta: np.ndarray,
        t_span: np.ndarray,
        *,
        loss: Any = None,
        done: Callable[[int], Any] | None = None,
    ) -> Any:
        """`loss` takes the place of `data`."""
        data = self._data if loss is None or getattr(loss, "members", None) is None else loss
        N = count_rows((u0, theta, t_span), data)
        if N == 0:
            return self._make(*self._arguments, **self._keywords)(u0, theta, t_span)
        rows = u0, theta, t_span
        widths = {"u0": u0.shape[1], "theta": theta.shape[1]}
        size = block_size(N, sum(widths[name] for name in self._summed))
        parts = []
        for first, stop in plan_parts(
            N, size, self._chunks, self._cost_of(N, t_span), sum(len(r) > 1 and r[0].nbytes for r in rows)
        ):
            keywords = {"size": size} | ({} if data is None else {"loss": data.part(first, stop)})
            parts.append(Part(first, stop, tuple(r[first:stop] if len(r) > 1 else r for r in rows), keywords))
        result = _joined(self._run(parts, done or (lambda k: None)))
        self._cost = None if result.work is None else result.work[:, 1:3].sum(axis=1)
        return result

    def _cost_of(self, N: int, t_span: np.ndarray) -> np.ndarray:
        """What each trajectory may cost: the steps it took last time, or the length of its span."""
        if self._cost is not None and len(self._cost) == N:
            return self._cost
        return np.broadcast_to(np.abs(t_span[:, 1] - t_span[:, 0]), N)

    def _run(self, parts: list[Part], done: Callable[[int], Any]) -> list[Any]:
        """Results in the order of the parts."""
        results: dict[int, Any] = {}
        waiting = [(k, 1) for k in reversed(range(len(parts)))]
        under_way: dict[tuple[int, int], Any] = {}
        finished, broken = queue.SimpleQueue[tuple[int, int]](), None
        try:
            while waiting or under_way:
                while waiting and len(under_way) < self._chunks and broken is None:
                    try:
                        future = self._executor.submit(run_part, self._problem, parts[waiting[-1][0]], waiting[-1][1])
                    except RuntimeError as error:  # a process pool with a dead worker takes nothing any more
                        broken = error
                        break
                    under_way[waiting[-1]] = future
                    future.add_done_callback(functools.partial(_report, finished, waiting.pop()))
                if not under_way:
                    break
                k, attempt = finished.get()
                kind, result = _result_of(under_way.pop((k, attempt)))
                if kind == "lost" and attempt < _ATTEMPTS:
                    waiting.append((k, attempt + 1))
                elif kind == "lost":
                    raise RuntimeError(_given_up(parts[k])) from result
                elif kind == "failed":
                    raise result
                else:
                    results[k] = result
                    done(parts[k].stop - parts[k].first)
        finally:
            for future in under_way.values():
                future.cancel()
        if waiting:
            results |= self._run_here({k: parts[k] for k, _ in waiting}, broken, done)
        return [results[k] for k in range(len(parts))]

    def _run_here(self, parts: dict[int, Part], broken: Exception | None, done: Callable[[int], Any]) -> dict[int, Any]:
        warnings.warn(
            f"the executor takes no more work ({broken!r}): {len(parts)} parts of the ensemble run in this process instead.",
            RuntimeWarning,
            stacklevel=7,
        )
        here = self._make(
            *self._arguments, **{name: None if name == "workers" else value for name, value in self._keywords.items()}
        )
        results = {}
        for k, part in sorted(parts.items()):
            results[k] = here(*part.rows, **part.keywords)
            done(part.stop - part.first)
        return results


def _report(finished: queue.SimpleQueue, which: tuple[int, int], future: Any) -> None:
    finished.put(which)


def _result_of(future: Any) -> tuple[str, Any]:
    """What `run_part` returned; ("lost", why) if it did not get to return."""
    try:
        return future.result()
    except Exception as error:
        return "lost", error


def _given_up(part: Part) -> str:
    return f"trajectories {part.first} to {part.stop - 1} were given up, because their worker died {_ATTEMPTS} times."


def plan_parts(N: int, size: int, chunks: int, cost: np.ndarray, row_bytes: int) -> list[tuple[int, int]]:
    """First and last-but-one trajectory of each part: runs of whole blocks, of about equal cost, and not too large."""
    starts = np.arange(0, N, size)
    number = min(len(starts), max(chunks, -(-N * row_bytes // _PART_BYTES)))
    so_far = np.cumsum(np.add.reduceat(cost, starts, dtype=float))
    ends = np.searchsorted(so_far, so_far[-1] * np.arange(1, number) / number, side="left") + 1
    edges = [0, *np.unique(ends[ends < len(starts)]) * size, N]
    return [(int(first), int(stop)) for first, stop in itertools.pairwise(edges)]


def _joined(results: list[Any]) -> Any:
    """One result from those of the parts, which are dataclasses of arrays."""
    columns = {}
    for field in fields(results[0]):
        arrays = [getattr(result, field.name) for result in results]
        columns[field.name] = None if arrays[0] is None else np.concatenate(arrays)
    return type(results[0])(**columns)
