"""Derivatives of callbacks by rewriting sources: `reading` makes a program of one, `reverse` its transpose, `writing` the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adjode.derivation.derived import Derived


def derive(function: Callable, arguments: tuple[str, ...] | None = None) -> Derived:
    """The derivatives of a callback, from its source.

    Parameters
    ----------
    function : callable
        `f(t, u, theta, du)`, which overwrites du, `f(t, u, theta)`, which returns it, or `g(t, u, theta)`, which returns a number.
        A Python function, or a jitted one.
    arguments : tuple of str, optional
        The names of the arguments, if not these: among k, an integer, t, d, u, theta, and du or y, which is overwritten.

    Returns
    -------
    Derived
        With the functions `vjp` and `vjp_u`, and their source `vjp_source` and `vjp_u_source`; `str()` gives both sources.

    Raises
    ------
    TypeError
        If it contains something that cannot be differentiated: the message says what and where, and what to write instead.
    """
    from adjode.derivation.derived import Derived  # here: importing adjode must stay light

    derived = Derived(function, arguments)
    derived.vjp_source  # noqa: B018  (so that what is refused is refused here)
    return derived


def derivative(function: Callable, *, vjp: Callable | None = None, jvp: Callable | None = None) -> Callable:
    """Declare the derivative of a function of numbers, for callbacks that call it.

    Parameters
    ----------
    function : callable
        `y = function(x1, x2, ...)` of floats, which Numba can compile.
    vjp : callable, optional
        `vjp(x1, x2, ..., y_bar)` returns the cotangents of the arguments: a tuple, or a number if there is one argument.
    jvp : callable, optional
        `jvp(x1, x2, ..., x1_dot, x2_dot, ...)` returns the tangent of y.

    Returns
    -------
    callable
        `function` itself.

    Raises
    ------
    TypeError
        If something is not callable, or no rule is given.
    """
    from adjode.derivation.library import teach

    return teach(function, vjp, jvp)
