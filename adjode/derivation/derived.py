"""Derived functions as Python functions, whose text tracebacks, debuggers and `inspect` show."""

from __future__ import annotations

import functools
import hashlib
import inspect
import linecache
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher

from adjode.derivation.deriving import program_text, reading, vjp_text
from adjode.derivation.jacobians import jac_text
from adjode.derivation.lanes import lanes_text
from adjode.derivation.nodes import Node
from adjode.derivation.pushing import jvp_text, vjp_dot_text
from adjode.derivation.sparsity import pattern

_FORMS = {4: ("t", "u", "theta", "du"), 3: ("t", "u", "theta")}


_SETS_ZERO = re.compile(r"\s*(\S+ = 0\.0|return 0\.0|for .*:)?$")


class Derived:
    """The derivatives of a function of (t, u, theta), each derived when it is first asked for.

    Attributes
    ----------
    function : callable
        `f(t, u, theta, du)`, `f(t, u, theta)` returning du, or `g(t, u, theta)` returning a number; or with other `arguments`,
        which are among k, t, d, u, theta, du and y.
    vjp : callable
        `vjp(t, u, theta, lam, u_bar, theta_bar)`; for a number `g_vjp(t, u, theta, u_bar, theta_bar)`.
    vjp_u : callable
        `vjp_u(t, u, theta, lam, u_bar)`.
    jvp : callable
        `jvp(t, u, theta, u_dot, theta_dot, du_dot)`: du_dot is `df/du u_dot + df/dtheta theta_dot`; for a number it is returned.
    jvps : callable or None
        `jvps(t, u, theta, u_dots, theta_dots, lanes, du_dots)`, the same for many directions, see `adjode.derivation.lanes`; None
        if f computes with whole arrays.
    jvps_u : callable or None
        The same where theta does not change: theta_dots are taken and not read.
    program : callable
        What was read in the source, as a function of the same arguments, written in terms that Numba knows.
    df_dt : callable
        `df_dt(t, u, theta, du_dot)`; for a number it is returned.
    vjp_dot : callable
        `vjp_dot(t, u, theta, lam, u_dot, theta_dot, lam_dot, u_bar_dot, theta_bar_dot)`: how the results of `vjp` change with its
        arguments. For a number, without `lam` and `lam_dot`, it is the product of its Hessian with (u_dot, theta_dot).
    jac : callable or None
        `jac(t, u, theta, J)` for straight-line code with few entries; otherwise None.
    vjp_source, vjp_u_source, jvp_source, df_dt_source, vjp_dot_source, jac_source : str
        Their source code.
    """

    def __init__(self, function: Callable, arguments: tuple[str, ...] | None = None):
        self.function = function
        self._arguments = _arguments(function) if arguments is None else arguments
        self._square = arguments is None or "du" in arguments  # a right-hand side has as many results as u has entries

    @functools.cached_property
    def vjp(self) -> Callable:
        return made("vjp", *self._vjp, self.function)

    @functools.cached_property
    def vjp_u(self) -> Callable:
        return made("vjp_u", *self._vjp_u, self.function)

    @functools.cached_property
    def jvp(self) -> Callable:
        return made("jvp", *self._jvp, self.function)

    @functools.cached_property
    def jvps(self) -> Callable | None:
        found = lanes_text(*self._jvp, "jvps")
        return None if found is None else made("jvps", *found, self.function)

    @functools.cached_property
    def jvps_u(self) -> Callable | None:
        found = lanes_text(*jvp_text(self.function, self._arguments, ("u",), "jvps_u"), "jvps_u")
        return None if found is None else made("jvps_u", *found, self.function)

    @functools.cached_property
    def program(self) -> Callable:
        return made("program", *program_text(self.function, self._arguments, "program"), self.function)

    @functools.cached_property
    def df_dt(self) -> Callable:
        return made("df_dt", *self._df_dt, self.function)

    @functools.cached_property
    def vjp_dot(self) -> Callable:
        return made("vjp_dot", *self._vjp_dot, self.function)

    @functools.cached_property
    def jac(self) -> Callable | None:
        return None if self._jac is None else made("jac", *self._jac, self.function)

    @functools.cached_property
    def _jac(self) -> tuple[str, dict[str, Any]] | None:
        return jac_text(self.function, self._arguments, "jac")

    def sparsity(self, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows and columns of the entries of df/du that can differ from zero, with n states and m parameters.

        Raises
        ------
        TypeError
            If the source does not tell.
        """
        with reading(self.function, self._arguments) as own:
            return pattern(own, n, m)

    @functools.cached_property
    def _jvp(self) -> tuple[str, dict[str, Any]]:
        return jvp_text(self.function, self._arguments, ("u", "theta"), "jvp")

    @functools.cached_property
    def _df_dt(self) -> tuple[str, dict[str, Any]]:
        return jvp_text(self.function, self._arguments, ("t",), "df_dt")

    @functools.cached_property
    def _vjp_dot(self) -> tuple[str, dict[str, Any]]:
        wrt = tuple(x for x in ("u", "theta") if x in self._arguments)
        return vjp_dot_text(self.function, self._arguments, wrt, "vjp_dot", self._square)

    @functools.cached_property
    def _vjp(self) -> tuple[str, dict[str, Any]]:
        return vjp_text(self.function, self._arguments, ("u", "theta"), "vjp", self._square)

    @functools.cached_property
    def _vjp_u(self) -> tuple[str, dict[str, Any]]:
        return vjp_text(self.function, self._arguments, ("u",), "vjp_u", self._square)

    @property
    def returns_array(self) -> bool:
        """Whether the result is an array, and no number."""
        return "lam" in inspect.signature(self.vjp).parameters

    @property
    def theta_costs(self) -> bool:
        """Whether the cotangents of parameters are so much of the work that `vjp_u` pays: they take loops or whole arrays."""
        lines = [line for line in self.vjp_source.splitlines()[1:] if "theta_bar" in line or "theta" in line.split("=")[0]]
        return any(line.startswith(" " * 8) or "dot(" in line or ".sum(" in line for line in lines)

    @property
    def is_autonomous(self) -> bool:
        """Whether the derivative by time is seen to be zero."""
        return all(_SETS_ZERO.match(line) for line in self.df_dt_source.splitlines()[1:])

    @property
    def vjp_source(self) -> str:
        return self._vjp[0]

    @property
    def vjp_u_source(self) -> str:
        return self._vjp_u[0]

    @property
    def jvp_source(self) -> str:
        return self._jvp[0]

    @property
    def df_dt_source(self) -> str:
        return self._df_dt[0]

    @property
    def jac_source(self) -> str | None:
        return None if self._jac is None else self._jac[0]

    @property
    def vjp_dot_source(self) -> str:
        return self._vjp_dot[0]

    def __repr__(self) -> str:
        return f"Derived({getattr(self.function, '__name__', self.function)})"

    def __str__(self) -> str:
        return f"{self.vjp_source}\n\n{self.vjp_u_source}"


def _arguments(function: Callable) -> tuple[str, ...]:
    python = getattr(function, "py_func", function)
    if not inspect.isfunction(python):
        raise TypeError(f"a Python or jitted function was expected, but {function!r} was given.")
    count = len(inspect.signature(python).parameters)
    if count not in _FORMS:
        raise TypeError(f"{python.__name__} must be f(t, u, theta, du) or f(t, u, theta), but it takes {count} arguments.")
    return _FORMS[count]


def made(name: str, text: str, space: dict[str, Any], function: Callable) -> Callable:
    """The function that a text defines, which stands in a file that exists in memory only; jitted if `function` is."""
    of = getattr(function, "__name__", "f")
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    file = f"<derived: {name} of {of}, {mark}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    names = {"__name__": __name__, **space}
    exec(compile(text, file, "exec"), names)
    made_function = names[name]
    if isinstance(function, Dispatcher):
        options = {k: v for k, v in function.targetoptions.items() if k in ("error_model", "nogil", "fastmath", "boundscheck")}
        return njit(**options)(made_function)
    return made_function


__all__ = ["Derived", "Node", "made"]
