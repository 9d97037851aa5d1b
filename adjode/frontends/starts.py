"""Fits from many starts: where these are, how they run side by side, and the table of what they have found."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from adjode.checks import choose, float_vector
from adjode.compile.cancellation import Cancellation
from adjode.frontends.entries import natural
from adjode.frontends.frames import data_frame
from adjode.frontends.progress import progress_line
from adjode.status import SolveError

if TYPE_CHECKING:
    import pandas
    from scipy.optimize import OptimizeResult

SAMPLINGS = ("latin", "sobol")
_SAME_LOSS, _SAME_PLACE = 1e-3, 1e-2  # relative, of fits that have ended at one minimum


class Free(Protocol):
    """What is read of a `Fit`."""

    x0: np.ndarray
    bounds: list[tuple[float, float]]
    names: list[str]


@dataclass(frozen=True)
class StartOptions:
    """How many starts there are, how they are chosen, and what runs them; see `Fit.minimize`."""

    starts: int = 1
    seed: Any = None
    sampling: str = "latin"
    workers: int | Executor = 1

    def points(self, fit: Free, x0: Any = None) -> np.ndarray:
        """x0, by default that of the fit, and behind it points within the bounds, (starts, k); the same ones for the same seed.

        Raises
        ------
        ValueError
            If there are no bounds to choose them from, or an option is none.
        """
        choose("sampling", self.sampling, SAMPLINGS)
        if not isinstance(self.starts, (int, np.integer)) or self.starts < 1:
            raise ValueError(f"starts must be a positive integer, but {self.starts!r} was given.")
        first = fit.x0 if x0 is None else float_vector("x0", x0, fit.x0.size)
        if self.starts == 1:
            return first[None]
        low, high = np.array(fit.bounds).T
        for name, least, most in zip(fit.names, low, high, strict=True):
            if not np.isfinite([least, most]).all():
                raise ValueError(
                    f"starts={self.starts} needs finite bounds to choose starts from, but {name} has ({least:g}, {most:g})."
                )
        return np.vstack([first, low + (high - low) * self._sample(self.starts - 1, fit.x0.size)])

    def _sample(self, count: int, k: int) -> np.ndarray:
        """Points of the unit cube (count, k)."""
        from scipy.stats import qmc

        if self.sampling == "latin":
            return qmc.LatinHypercube(k, seed=self.seed).random(count)
        return qmc.Sobol(k, seed=self.seed).random_base2(int(np.ceil(np.log2(max(count, 1)))))[:count]

    @contextlib.contextmanager
    def mapping(self) -> Iterator[Callable[..., Iterator[Any]]]:
        """The `map` of what runs the starts behind the first one. Threads stop where the context is left by an exception."""
        workers: Any = self.workers
        if hasattr(workers, "submit"):
            yield workers.map
        elif isinstance(workers, (int, np.integer)) and workers == 1:
            yield map
        elif isinstance(workers, (int, np.integer)) and workers > 1:
            with ThreadPoolExecutor(int(workers)) as threads, Cancellation() as cancellation:
                yield lambda task, points: threads.map(cancellation(task), points)
        else:
            raise ValueError(f"workers must be a number of threads or an executor, but {self.workers!r} was given.")


class Outcome(NamedTuple):
    """What has become of one start: a result, or why there is none."""

    result: OptimizeResult | None
    failure: SolveError | None  # the first of its solves that failed
    n_failed: int
    n_evaluations: int


@dataclass(frozen=True)
class Task:
    """A fit from one start, `task(x0) -> Outcome`; it can be sent to another process, but for what shows progress."""

    fit: Any
    method: str
    options: dict[str, Any]
    show: Callable[..., None] | None = None

    def __call__(self, x0: np.ndarray) -> Outcome:
        raise NotImplementedError


def run_starts(task: Task, points: np.ndarray, how: StartOptions, progress: bool, unit: str) -> list[Outcome]:
    """The outcomes of all starts, in their order. The first one runs here, so that all is compiled before others begin."""
    with how.mapping() as mapping:
        if mapping is map or len(points) == 1:
            with progress_line(progress, unit) as show:
                shown = dataclasses.replace(task, show=show)
                return [shown(x0) for x0 in points]
        with progress_line(progress, "starts") as show:
            outcomes = [task(points[0])]
            show({}, outcomes[0].n_failed)
            for outcome in mapping(task, points[1:]):
                outcomes.append(outcome)
                show({}, sum(one.n_failed for one in outcomes))
            return outcomes


def best_of(outcomes: Sequence[Outcome], names: list[str], rates: np.ndarray) -> tuple[OptimizeResult, str]:
    """The result with the lowest loss, with all that ended as its `starts` if there are more; and a warning of failed solves.

    Raises
    ------
    SolveError
        If no start has a result.
    """
    results = [one.result for one in outcomes if one.result is not None]
    failures = [one.failure for one in outcomes if one.failure is not None]
    if not results:
        raise failures[0]
    best = min(results, key=lambda result: result.loss)
    best.n_failed = sum(one.n_failed for one in outcomes)
    if len(outcomes) > 1:
        best.starts = Starts(results, names, rates)
    count = sum(one.n_evaluations for one in outcomes)
    warning = (
        f"{best.n_failed} of the {count} solves of the fit failed, and the optimiser stepped back from them; the first: "
        if failures
        else ""
    )
    return best, warning + str(failures[0]) if warning else ""


@dataclass(frozen=True, eq=False, repr=False)
class Starts(Sequence):
    """Where fits from many starts ended: a sequence of SciPy's results, in the order of the starts. `str()` gives the optima.

    Attributes
    ----------
    results : list of scipy.optimize.OptimizeResult
        Each with its `loss`.
    names : list of k str
    rates : (k,) array
        Which entries of x are logarithms, see `Entries`.
    """

    results: list[OptimizeResult]
    names: list[str]
    rates: np.ndarray

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    @property
    def losses(self) -> np.ndarray:
        """(s,) array."""
        return np.array([result.loss for result in self.results])

    @property
    def values(self) -> np.ndarray:
        """The entries in natural units, (s, k)."""
        return natural(np.array([result.x for result in self.results]), self.rates)

    def optima(self) -> list[list[int]]:
        """Which starts have ended at each minimum, to a thousandth of the loss and a hundredth of all entries; the lowest first."""
        losses, values = self.losses, self.values
        found: list[list[int]] = []
        for k in np.argsort(losses, kind="stable"):
            for group in found:
                same = abs(losses[k] - losses[group[0]]) <= _SAME_LOSS * max(abs(losses[group[0]]), 1e-12)
                if same and np.allclose(values[k], values[group[0]], rtol=_SAME_PLACE, atol=1e-8):
                    group.append(int(k))
                    break
            else:
                found.append([int(k)])
        return found

    def __str__(self) -> str:
        rows = [("loss", "starts", *self.names)]
        for group in self.optima():
            rows.append((f"{self.losses[group[0]]:.6g}", str(len(group)), *(f"{value:.5g}" for value in self.values[group[0]])))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)

    def __repr__(self) -> str:
        return f"Starts of {len(self)} fits, {len(self.optima())} optima"

    def to_frame(self) -> pandas.DataFrame:
        """A row for each start: loss, evaluations, SciPy's verdict, and all entries in natural units."""
        columns = {"loss": self.losses, "nfev": [one.nfev for one in self], "message": [one.message for one in self]}
        return data_frame(columns | dict(zip(self.names, self.values.T, strict=True)), range(len(self)), "start")
