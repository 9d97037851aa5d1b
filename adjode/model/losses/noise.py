"""Noise: how data scatter around what the model says, as a density with a scale, which may be a parameter."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from adjode.checks import require_unmasked
from adjode.model.losses import densities
from adjode.model.messages import count_arguments

Quantity = Any  # a number, an array that broadcasts to the data, the name of an entry of theta, or a function


class Noise:
    """A density of data, whose scale and shape are numbers or parameters.

    Attributes
    ----------
    density : int
        See `densities.py`.
    scale, shape : number, array, str, function or None
        None for a density that has none; a scale that is still to be given is None as well.
    factor : float
        What the scale is multiplied by.
    """

    density: ClassVar[int]
    scale_name: ClassVar[str | None] = "sigma"
    of_logarithm: ClassVar[bool] = False
    of_counts: ClassVar[bool] = False
    is_square: ClassVar[bool] = False
    factor: float = 1.0

    def __init__(self, sigma: Quantity = None):
        self.scale, self.shape = _checked("sigma", sigma), None

    def constant(self, d: np.ndarray) -> np.ndarray:
        """What `densities.negative_log` leaves out, for data (N,)."""
        raise NotImplementedError

    def with_scale(self, scale: np.ndarray) -> Noise:
        """The same with a scale (k,) for each datum."""
        other = copy.copy(self)
        other.scale = _checked(str(self.scale_name), scale)
        return other

    def __repr__(self) -> str:
        parts = [one for one in (self.scale, self.shape) if one is not None]
        return f"{type(self).__name__}({', '.join(getattr(one, '__name__', repr(one)) for one in parts)})"


def _checked(name: str, value: Quantity) -> Quantity:
    if value is None or isinstance(value, str) or callable(value) or isinstance(value, tuple):
        return value
    require_unmasked(name, value)
    try:
        found = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, array, name of a parameter or function, but {value!r} was given.") from None
    if not (found[~np.isnan(found)] > 0.0).all() or np.isnan(found).all() or np.isinf(found).any():
        raise ValueError(f"{name} must be positive, but {value!r} was given.")
    return found


class Gaussian(Noise):
    """The normal density, with standard deviation sigma.

    Parameters
    ----------
    sigma : number, array, str or callable
        An array broadcasts to the data. A string names an entry of theta, as in `Dynamics(parameters=...)`, or "theta[3]". A
        function `sigma(t, u, theta, s)` overwrites s (c,), or `sigma(t, u, theta)` returns it; one function is for all columns.
    """

    density, is_square = densities.GAUSSIAN, True

    def constant(self, d: np.ndarray) -> np.ndarray:
        return np.full(d.size, 0.5 * math.log(2.0 * math.pi))


class Laplace(Noise):
    """The density `exp(-|y - data| / sigma) / (2 sigma)`; sigma as for `Gaussian`."""

    density = densities.LAPLACE

    def constant(self, d: np.ndarray) -> np.ndarray:
        return np.full(d.size, math.log(2.0))


class _OfLogarithm(Noise):
    of_logarithm = True

    def __init__(self, sigma: Quantity = None, *, base: float = math.e):
        super().__init__(sigma)
        if not base > 1.0:
            raise ValueError(f"base must be the base of a logarithm, above 1, but {base!r} was given.")
        self.factor = math.log(base)


class LogNormal(_OfLogarithm):
    """The density of positive data whose logarithms are normal around the logarithm of the prediction.

    Parameters
    ----------
    sigma : number, array, str or callable
        The standard deviation of the logarithms; as for `Gaussian`.
    base : float
        The base of the logarithms.
    """

    density, is_square = densities.LOG_NORMAL, True

    def constant(self, d: np.ndarray) -> np.ndarray:
        return 0.5 * math.log(2.0 * math.pi) + np.log(d)


class LogLaplace(_OfLogarithm):
    """The density of positive data whose logarithms have Laplace's density around that of the model; see `LogNormal`."""

    density = densities.LOG_LAPLACE

    def constant(self, d: np.ndarray) -> np.ndarray:
        return math.log(2.0) + np.log(d)


class Poisson(Noise):
    """The probability of counts whose mean is what the model says."""

    density, scale_name, of_counts = densities.POISSON, None, True

    def __init__(self) -> None:
        self.scale = self.shape = None

    def constant(self, d: np.ndarray) -> np.ndarray:
        from scipy.special import gammaln

        return gammaln(d + 1.0)


class NegativeBinomial(Noise):
    """The probability of counts with mean y and variance `y + dispersion y^2`; it tends to Poisson's as the dispersion goes to
    zero.

    Parameters
    ----------
    dispersion : number, array, str or callable
        As for sigma of `Gaussian`.
    """

    density, scale_name, of_counts = densities.NEGATIVE_BINOMIAL, "dispersion", True

    def __init__(self, dispersion: Quantity):
        self.scale, self.shape = _checked("dispersion", dispersion), None

    def constant(self, d: np.ndarray) -> np.ndarray:
        from scipy.special import gammaln

        return gammaln(d + 1.0)


class StudentT(Noise):
    """Student's t density around the prediction, for data with outliers.

    Parameters
    ----------
    sigma : number, array, str or callable
        The scale, as for `Gaussian`: not the standard deviation.
    degrees : number or str
        Degrees of freedom, a number or an entry of theta.
    """

    density = densities.STUDENT_T

    def __init__(self, sigma: Quantity = None, *, degrees: float | str):
        super().__init__(sigma)
        if callable(degrees) or np.ndim(degrees):
            raise TypeError(f"degrees must be a number or the name of a parameter, but {degrees!r} was given.")
        self.shape = _checked("degrees", degrees)

    def constant(self, d: np.ndarray) -> np.ndarray:
        return np.full(d.size, 0.5 * math.log(math.pi))


class Density(Noise):
    """A density of your own.

    Parameters
    ----------
    negative_log : callable
        `negative_log(y, d, theta) -> float`: minus the logarithm of the density of a datum d around the prediction y. It is
        compiled, and its derivatives by y and theta are derived from its source and compared with differences; d counts as data.

    Raises
    ------
    TypeError
        If it is not such a function.
    """

    density, scale_name = densities.OWN, None

    def __init__(self, negative_log: Callable):
        form = "negative_log(y, d, theta) -> float"
        if count_arguments("a density", negative_log, form) != 3:
            raise TypeError(f"a density must be a function {form}, minus the logarithm of the density of a datum d around y.")
        self.scale = self.shape = None
        self.function = negative_log

    def constant(self, d: np.ndarray) -> np.ndarray:
        return np.zeros(d.size)

    def __repr__(self) -> str:
        return f"Density({self.function.__name__})"


def per_column(noise: Any, names: list[str] | None, c: int) -> list[Noise]:
    """A noise for each of c columns, from one for all, a list, or a dict of their names.

    Raises
    ------
    ValueError, TypeError
        If there is not one for each.
    """
    if isinstance(noise, Noise):
        return [noise] * c
    if isinstance(noise, dict):
        known = [] if names is None else names
        if unknown := [name for name in noise if name not in known]:
            raise ValueError(f"noise names the observable {unknown[0]!r}, but they are {', '.join(known) or 'not named'}.")
        if missing := [name for name in known if name not in noise]:
            raise ValueError(f"noise must have an entry for each observable, but lacks {', '.join(map(repr, missing))}.")
        noise = [noise[name] for name in known]
    if not isinstance(noise, (list, tuple)) or not all(isinstance(one, Noise) for one in noise):
        raise TypeError(f"noise must be an object such as Gaussian(sigma), or a list or dict of them, but {noise!r} was given.")
    if len(noise) != c:
        raise ValueError(f"noise must have an entry for each of the {c} columns of data, but it has {len(noise)}.")
    return list(noise)
