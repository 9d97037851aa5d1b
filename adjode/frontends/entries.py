"""`Entries`: what is fitted, as the vector x that an optimiser sees: chosen entries of u0 and theta, or named parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.checks import choose, float_vector
from adjode.frontends.priors import Prior
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.selection import natural_bounds, selection_mask
from adjode.status import SolveError, Status

SCALES = {"lin": 0.0, "log": 1.0, "log10": math.log(10.0)}  # the rate at which exp(rate x) is the value; 0 where x is the value


def natural(x: Any, rates: Any) -> np.ndarray:
    """What the optimiser sees, in natural units."""
    with np.errstate(over="ignore", invalid="ignore"):  # infinite ends of intervals, on either scale
        return np.where(rates > 0.0, np.exp(rates * x), x)


class Entries:
    """Values in natural units, of which some are free; on a logarithmic scale, of whatever base, where asked for.

    Attributes
    ----------
    x0 : (k,) array
    bounds : list of k pairs (low, high)
    names : list of k str
    is_free : (q,) array of bool
        Which of all q values.
    """

    def __init__(
        self,
        names: Sequence[str],
        start: np.ndarray,
        is_free: np.ndarray,
        rates: np.ndarray,
        bounds: tuple[np.ndarray, np.ndarray],
        t0: float = math.nan,
    ):
        self._t0, self._start, self.is_free = t0, start, is_free
        self._free = np.flatnonzero(is_free)
        self._rates = rates[self._free]
        self._log = self._rates > 0.0
        self.names = [name for name, free in zip(names, is_free, strict=True) if free]
        self._check_positive()
        self.x0 = self._transform(start[self._free])
        self.bounds = self._transform_bounds(*bounds)

    def _slopes(self, z: np.ndarray) -> np.ndarray:
        """Derivatives of the free values by x."""
        return np.where(self._log, self._rates * z[self._free], 1.0)

    def _checked_natural(self, x: np.ndarray) -> np.ndarray:
        z = self._natural(x)
        if not np.isfinite(z).all():
            k = int(np.argmax(~np.isfinite(z[self._free])))
            raise self._non_finite(f"{self.names[k]} " + ("overflows" if np.isfinite(x[k]) else f"is {x[k]}"))
        return z

    def _non_finite(self, what: str) -> SolveError:
        return SolveError(f"{what}.", phase="loss", status=Status.NON_FINITE, t=self._t0)

    def _natural(self, x: np.ndarray) -> np.ndarray:
        """All values in natural units, with x in place of the free ones."""
        if np.shape(x) != self._free.shape:
            raise ValueError(f"x must have {self._free.size} entries, one for each free entry, but its shape is {np.shape(x)}.")
        z = self._start.copy()
        z[self._free] = natural(x, self._rates)
        return z

    def _transform(self, values: np.ndarray) -> np.ndarray:
        """Natural units to x; what is not positive on a log scale becomes -inf."""
        x, log = values.copy(), self._log
        x[log] = np.log(values[log], out=np.full(int(log.sum()), -np.inf), where=values[log] > 0) / self._rates[log]
        return x

    def _transform_bounds(self, low: np.ndarray, high: np.ndarray) -> list[tuple[float, float]]:
        start = self._start[self._free]
        for name, value, least, most in zip(self.names, start, low, high, strict=True):
            if least > most:
                raise ValueError(f"the bounds of {name} must be (low, high), the low one first, but are ({least:g}, {most:g}).")
            if not least <= value <= most:
                raise ValueError(f"{name} must start within its bounds ({least:g}, {most:g}), but it starts at {value:g}.")
        return [(float(a), float(b)) for a, b in zip(self._transform(low), self._transform(high), strict=True)]

    def _check_positive(self) -> None:
        start = self._start[self._free]
        for i in np.flatnonzero(self._log & ~(start > 0)):
            raise ValueError(f"{self.names[i]} must start positive to be fitted on a log scale, but it starts at {start[i]:g}.")


def selected(
    dynamics: Dynamics,
    t0: float,
    u0: Any,
    theta: Any,
    free: Any,
    log: Any,
    bounds: Any,
    readers: Sequence[Callback | set[int]] | None = (),
) -> dict[str, Any]:
    """The arguments of `Entries` for the entries of u0 and theta, u0 before theta; see `Fit`. `readers` are callbacks that read
    theta, beside those of the dynamics; None if others do.
    """
    layouts = dynamics.layouts(u0, theta)
    dynamics.require_order(*layouts, readers=readers)
    start = np.concatenate([layouts[0].flatten("u0", u0), layouts[1].flatten("theta", theta)])
    is_free = selection_mask("free", free, layouts)
    if not is_free.any():
        raise ValueError("free selects no entry, so there is nothing to fit.")
    rates = np.where(selection_mask("log", log, layouts), SCALES["log"], SCALES["lin"])
    names = layouts[0].entry_names() + layouts[1].entry_names()
    limits = tuple(side[is_free] for side in natural_bounds(bounds, layouts, is_free))
    return {"names": names, "start": start, "is_free": is_free, "rates": rates, "bounds": limits, "t0": t0}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a fit of experiments.

    Parameters
    ----------
    start : float
        Where the fit starts.
    bounds : (low, high)
        In natural units; None means no bound.
    scale : {"lin", "log", "log10"}
        What the optimiser sees: the value, or its logarithm.
    prior : Prior, optional
        See `adjode.priors`; minus the logarithm of its density is added to the loss.
    fixed : bool
        Keep it at `start`.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.
    """

    start: float
    bounds: tuple[float | None, float | None] = (None, None)
    scale: str = "lin"
    prior: Prior | None = None
    fixed: bool = False

    def __post_init__(self) -> None:
        choose("scale", self.scale, tuple(SCALES))
        float_vector("start", self.start, 1)
        if not isinstance(self.bounds, (tuple, list)) or len(self.bounds) != 2:
            raise ValueError(f"bounds must be a pair (low, high), but {self.bounds!r} was given.")
        if self.prior is not None and not isinstance(self.prior, Prior):
            raise TypeError(f"prior must be one of adjode.priors, but a {type(self.prior).__name__} was given.")

    @property
    def limits(self) -> tuple[float, float]:
        low, high = self.bounds
        return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def named(parameters: Mapping[str, Parameter | float]) -> dict[str, Parameter]:
    """Parameters by name, of which numbers are fixed ones.

    Raises
    ------
    ValueError, TypeError
        If that is no such dict, or has nothing to fit.
    """
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a dict of name -> adjode.Parameter, but a {type(parameters).__name__} was given.")
    found = {}
    for name, given in parameters.items():
        if not isinstance(name, str):
            raise TypeError(f"the names of parameters must be strings, but {name!r} was given.")
        try:
            found[name] = given if isinstance(given, Parameter) else Parameter(float_vector("it", given, 1)[0], fixed=True)
        except (TypeError, ValueError) as error:
            raise type(error)(f"the parameter {name!r} must be an adjode.Parameter, or a number that is fixed: {error}") from None
    if all(one.fixed for one in found.values()):
        raise ValueError("there is no free parameter, so there is nothing to fit.")
    return found


def entries_of(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """The arguments of `Entries` for named parameters."""
    ones = list(parameters.values())
    is_free = np.array([not one.fixed for one in ones])
    low, high = np.array([one.limits for one in ones])[is_free].T
    return {
        "names": list(parameters),
        "start": np.array([one.start for one in ones], dtype=float),
        "is_free": is_free,
        "rates": np.array([SCALES[one.scale] for one in ones]),
        "bounds": (low, high),
    }
