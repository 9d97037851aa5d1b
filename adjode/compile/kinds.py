"""The kinds of callbacks: what each of them reads and writes. `KINDS` is the only list of them; all else is made from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Shapes of the arrays, in numbers of states, n, of parameters, m, of what is observed, c, and of events, e. A shape () is that of a
# number; for lanes see derivation/lanes.py.
SHAPES: dict[str, tuple[str, ...]] = {
    "u": ("n",),
    "theta": ("m",),
    "lam": ("n",),
    "v": ("n",),
    "w": ("m",),
    "du": ("n",),
    "du_dot": ("n",),
    "lam_dot": ("n",),
    "u_bar_dot": ("n",),
    "theta_bar_dot": ("m",),
    "u_dots": ("n lanes",),
    "theta_dots": ("m lanes",),
    "lanes": ("up to lanes",),
    "du_dots": ("n lanes",),
    "u_bar": ("n",),
    "theta_bar": ("m",),
    "J": ("n", "n"),
    "value": (),
    "values": ("e",),
    "which": ("one",),
    "middle": ("n",),
    "t_middle": ("one",),
    "signs": ("e",),
    "places": ("8 e",),
    "u_new": ("n",),
    "y": ("c",),
    "y_bar": ("c",),
    "y_bar_dot": ("c",),
}


LANES = 32  # directions that go together in a jvps


@dataclass(frozen=True)
class Kind:
    """One kind of callback: `name(t, *inputs, *outputs)`, which overwrites the outputs, or `name(t, *inputs)`, which returns them.
    Those of losses may have other numbers in place of t.

    Kernels call every callback in place, and all arrays are vectors to them: a matrix by rows, a number as a vector of one.

    Attributes
    ----------
    name : str
    inputs, outputs : tuple of str
        The arrays it reads, u and theta first, and those it overwrites.
    of : {"dynamics", "tangents", "cost", "events", "loss", "event"}
        What it belongs to. The fused tier inlines that of a `Dynamics`; passes call others through their addresses, but for those
        of a loss, which are part of its entry, and of a single event, which are joined with those of others.
    numbers : tuple of str
        The arguments ahead of the arrays: t, k, an integer, or d, a datum.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    of: str = "dynamics"
    numbers: tuple[str, ...] = ("t",)

    @property
    def of_dynamics(self) -> bool:
        return self.of == "dynamics"

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
        return (*self.numbers, *(self.arrays if in_place else self.inputs))

    def __str__(self) -> str:
        """The forms that a user may choose from."""
        return " or ".join(f"{self.name}({', '.join(self.arguments(in_place))})" for in_place in self.forms)


def shape_of(array: str, n: int, m: int, c: int = 0) -> tuple[int, ...]:
    """The shape of an array of callbacks for n states and m parameters, of which c numbers are observed."""
    return tuple({"n": n, "m": m, "c": c}[length] for length in SHAPES[array])


def size_of(array: str, n: int, m: int, c: int = 0) -> int:
    return math.prod(shape_of(array, n, m, c))


KINDS = {
    kind.name: kind
    for kind in (
        Kind("f", ("u", "theta"), ("du",)),
        Kind("vjp", ("u", "theta", "lam"), ("u_bar", "theta_bar")),
        Kind("vjp_u", ("u", "theta", "lam"), ("u_bar",)),
        Kind("jac", ("u", "theta"), ("J",)),
        Kind("jvp", ("u", "theta", "v", "w"), ("du_dot",), "tangents"),
        Kind("jvps", ("u", "theta", "u_dots", "theta_dots", "lanes"), ("du_dots",), "tangents"),
        Kind("f_dt", ("u", "theta"), ("du_dot",), "tangents"),
        Kind("vjp_dot", ("u", "theta", "lam", "v", "w", "lam_dot"), ("u_bar_dot", "theta_bar_dot"), "tangents"),
        Kind("sides", ("u", "theta"), ("du", "values"), "tangents"),
        Kind("g", ("u", "theta"), ("value",), "cost"),
        Kind("g_dt", ("u", "theta"), ("value",), "cost"),
        Kind("g_vjp", ("u", "theta"), ("u_bar", "theta_bar"), "cost"),
        Kind("g_vjp_dot", ("u", "theta", "v", "w"), ("u_bar_dot", "theta_bar_dot"), "loss"),
        Kind("observe", ("u", "theta"), ("y",), "loss"),
        Kind("observe_vjp", ("u", "theta", "y_bar"), ("u_bar", "theta_bar"), "loss"),
        Kind("observe_vjp_dot", ("u", "theta", "y_bar", "v", "w", "y_bar_dot"), ("u_bar_dot", "theta_bar_dot"), "loss"),
        Kind("value", ("u", "theta"), ("value",), "loss", ("k", "t")),
        Kind("value_vjp", ("u", "theta"), ("u_bar", "theta_bar"), "loss", ("k", "t")),
        Kind("value_vjp_dot", ("u", "theta", "v", "w"), ("u_bar_dot", "theta_bar_dot"), "loss", ("k", "t")),
        Kind("density", ("u", "theta"), ("value",), "loss", ("d",)),  # of a datum d, where u has but what is observed
        Kind("density_vjp", ("u", "theta"), ("u_bar", "theta_bar"), "loss", ("d",)),
        Kind("density_vjp_dot", ("u", "theta", "v", "w"), ("u_bar_dot", "theta_bar_dot"), "loss", ("d",)),
        Kind("guard", ("u", "theta"), ("value",), "event"),
        Kind("reset", ("u", "theta"), ("u_new",), "event"),
        Kind("guards", ("u", "theta"), ("values",), "events"),
        Kind("glance", ("u", "theta", "middle", "t_middle", "signs"), ("places",), "events"),
        Kind("guards_vjp", ("u", "theta", "which"), ("u_bar", "theta_bar"), "events"),
        Kind("guards_dt", ("u", "theta", "which"), ("values",), "events"),
        Kind("resets", ("u", "theta", "which"), ("u_new",), "events"),
        Kind("resets_vjp", ("u", "theta", "which", "lam"), ("u_bar", "theta_bar"), "events"),
        Kind("resets_jvp", ("u", "theta", "which", "v", "w"), ("du_dot",), "events"),
        Kind("resets_dt", ("u", "theta", "which"), ("u_new",), "events"),
    )
} | {
    "final_value": Kind("value", ("u", "theta"), ("value",), "loss", ()),
    "final_value_vjp": Kind("value_vjp", ("u", "theta"), ("u_bar", "theta_bar"), "loss", ()),
    "final_value_vjp_dot": Kind("value_vjp_dot", ("u", "theta", "v", "w"), ("u_bar_dot", "theta_bar_dot"), "loss", ()),
}
