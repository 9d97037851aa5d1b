"""The kinds of callbacks: what each of them reads and writes. `KINDS` is the only list of them; all else is made from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Shapes of the arrays, in numbers of states, n, of parameters, m, and of events, e. A shape () is that of a number.
SHAPES: dict[str, tuple[str, ...]] = {
    "u": ("n",),
    "theta": ("m",),
    "lam": ("n",),
    "du": ("n",),
    "u_bar": ("n",),
    "theta_bar": ("m",),
    "J": ("n", "n"),
    "value": (),
    "values": ("e",),
    "which": ("one",),
    "u_new": ("n",),
}


@dataclass(frozen=True)
class Kind:
    """One kind of callback: `name(t, *inputs, *outputs)`, which overwrites the outputs, or `name(t, *inputs)`, which returns them.

    Kernels call every callback in place, and all arrays are vectors to them: a matrix by rows, a number as a vector of one.

    Attributes
    ----------
    name : str
    inputs, outputs : tuple of str
        The arrays it reads, u and theta first, and those it overwrites.
    of_dynamics : bool
        Whether it belongs to a `Dynamics`, so that the fused tier inlines it; if not it is called through its address.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    of_dynamics: bool = True

    @property
    def arrays(self) -> tuple[str, ...]:
        return self.inputs + self.outputs

    @property
    def returns_number(self) -> bool:
        """Whether the result is a number, which is returned in any case."""
        return any(SHAPES[name] == () for name in self.outputs)

    @property
    def returns_matrix(self) -> bool:
        return any(len(SHAPES[name]) == 2 for name in self.outputs)

    @property
    def forms(self) -> tuple[bool, ...]:
        """Whether it may be given in place, and whether not."""
        return (False,) if self.returns_number else (True, False)

    def arguments(self, in_place: bool) -> tuple[str, ...]:
        """The names of the arguments in one of the two forms."""
        return ("t", *self.arrays) if in_place else ("t", *self.inputs)

    def __str__(self) -> str:
        """The forms that a user may choose from."""
        return " or ".join(f"{self.name}({', '.join(self.arguments(in_place))})" for in_place in self.forms)


def shape_of(array: str, n: int, m: int) -> tuple[int, ...]:
    """The shape of an array of callbacks for n states and m parameters."""
    return tuple({"n": n, "m": m}[length] for length in SHAPES[array])


def size_of(array: str, n: int, m: int) -> int:
    return math.prod(shape_of(array, n, m))


KINDS = {
    kind.name: kind
    for kind in (
        Kind("f", ("u", "theta"), ("du",)),
        Kind("vjp", ("u", "theta", "lam"), ("u_bar", "theta_bar")),
        Kind("vjp_u", ("u", "theta", "lam"), ("u_bar",)),
        Kind("jac", ("u", "theta"), ("J",)),
        Kind("g", ("u", "theta"), ("value",), of_dynamics=False),
        Kind("g_vjp", ("u", "theta"), ("u_bar", "theta_bar"), of_dynamics=False),
        Kind("guard", ("u", "theta"), ("value",), of_dynamics=False),
        Kind("reset", ("u", "theta"), ("u_new",), of_dynamics=False),
        Kind("guards", ("u", "theta"), ("values",), of_dynamics=False),
        Kind("guards_vjp", ("u", "theta", "which"), ("u_bar", "theta_bar"), of_dynamics=False),
        Kind("guards_dt", ("u", "theta", "which"), ("values",), of_dynamics=False),
        Kind("resets", ("u", "theta", "which"), ("u_new",), of_dynamics=False),
        Kind("resets_vjp", ("u", "theta", "which", "lam"), ("u_bar", "theta_bar"), of_dynamics=False),
        Kind("resets_dt", ("u", "theta", "which"), ("u_new",), of_dynamics=False),
    )
}
