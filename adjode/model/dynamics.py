"""`Dynamics`: the user's right-hand side and its vector-Jacobian product, validated and compiled once."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adjode.checks import float_vector
from adjode.compile.calls import PORTABLE, Calls, fused_calls
from adjode.derivation.origins import remember, texts_of
from adjode.linalg.mass import Mass, read_mass
from adjode.linalg.structure import read_sparsity
from adjode.model.callbacks import Callback, callback
from adjode.model.fields import Fields, Pair, component, entry_name, fields_of
from adjode.model.layout import Layout
from adjode.model.names import entries_read, reads, require_order, unpacked_names, warn_of_unread
from adjode.model.switches import switches_of

if TYPE_CHECKING:
    from adjode.derivation.derived import Derived


class Dynamics:
    """A differential equation `du/dt = f(t, u, theta)`, or `M du/dt = f(t, u, theta)`, with the pullback of f.

    Parameters
    ----------
    f : callable
        `f(t, u, theta, du)` overwrites `du` (n,), or `f(t, u, theta)` returns it.
    vjp : callable, optional
        `vjp(t, u, theta, lam, u_bar, theta_bar)` overwrites `u_bar = (df/du)^T lam` (n,) and
        `theta_bar = (df/dtheta)^T lam` (m,), or `vjp(t, u, theta, lam)` returns the two. If it is not given, it is derived from the
        source of f, see `adjode.derive`, and the first solve that uses it compares it with differences of f. `vjp_u` is then
        derived too, if it saves work.
    vjp_u : callable, optional
        `vjp_u(t, u, theta, lam, u_bar)`, or `vjp_u(t, u, theta, lam)` returning `u_bar`: the first half alone, used wherever
        theta_bar is not needed.
    jvp : callable, optional
        `jvp(t, u, theta, v, w, du_dot)` overwrites `du_dot = (df/du) v + (df/dtheta) w` (n,), or `jvp(t, u, theta, v, w)` returns
        it: for tangents, as in `Solution.pushforward`. If not given, it is derived from the source of f when first needed. Either
        way it is compared with differences of f then. If it cannot be derived, tangents take n products with the vjp instead.
    vjp_dot : callable, optional
        `vjp_dot(t, u, theta, lam, v, w, lam_dot, u_bar_dot, theta_bar_dot)` overwrites the last two with the change in the results
        of vjp when u, theta and lam change by v, w and lam_dot: for Hessian-vector products. If not given, it is derived from the
        source of f when first needed. Either way it is compared with differences of vjp then.
    jac : callable, optional
        `jac(t, u, theta, J)` overwrites `J[i, j] = df_i / du_j` (n, n), or `jac(t, u, theta)` returns it: for stiff methods.
        Without it, they compute the Jacobian from products with the vjp, which is exact as well.
    jac_sparsity : (n, n) array or sparse matrix, or "probe", optional
        Which entries of the Jacobian may be nonzero: those that are nonzero in this matrix. The Jacobian then takes a few products
        instead of n, and its systems are solved as banded or sparse ones if that pays. "probe" finds the pattern at the first
        solve, from n products at each of a few places around u0 and theta; see `adjode.jacobian.probe` for what it can miss.
    mass : (n, n) array or sparse matrix, or (n,) array, optional
        A constant matrix M, or its diagonal, for `M du/dt = f(t, u, theta)`, which method="Radau" solves. It may be singular: some
        equations are then algebraic. They must determine as many components of u (index 1) and hold at u0. The callbacks know
        nothing of M.
    states, parameters : tuple of names, optional
        Names of the entries of u and of theta, in their order: `states=("prey", "predators")`. Callbacks may then use fields of
        their arguments, as in `u.prey`, `du.prey`, `lam.prey` and `theta_bar.growth`, which compile to the same code as `u[0]`.
        Dicts and other named `u0` and `theta` are matched by name, in any order, and errors, reports and fits use the names. A pair
        ("W", (50, 2)) instead of a name is an array, in C order, and `theta.W` is a view of it; a dict {"growth": (), "W": (50, 2)}
        is equivalent. Vectors without names are still accepted.
    breaks : (k,) array, optional
        Times at which f, or its slope, may jump because of its own functions of time. They are stops of every solve, in addition to
        those that `stops=` gives for one solve. You need not name the breaks of a `Table` that f calls with t, or times that
        comparisons in f show, such as `5.0 <= t < 6.0`, `t % 24.0 < 4.0` or `t >= theta[0]`, which may depend on theta. `breaks=()`
        declares that f does not jump.
    name : str, optional
        Shown in reprs; the name of `f` by default.
    fused : bool
        Compile each pass for these callbacks, the method and the numbers of states and parameters: the callbacks are inlined, the
        stages are straight-line code, and small arrays are on the stack. Otherwise one compiled pass is used for all problems and
        calls through addresses. Use it for small systems that are solved many times. Each pass takes a while to compile, once for
        each method and size. The result is cached on disk under a hash of the callbacks' code, the constants they capture, the
        method and the sizes, so a later process compiles nothing.
    debug : bool
        Check the bounds of every array access of the callbacks, and that they do not change their inputs. Slower; for finding
        errors.

    Raises
    ------
    TypeError
        If a callback takes the wrong number of arguments, or uses fields that were not declared, or Numba cannot compile it, or if
        there is no vjp and something in f cannot be differentiated.
    ValueError
        If a name is given twice, or is that of an array attribute, such as `size`. If jac_sparsity or mass is not a square matrix,
        or mass is not finite.

    Notes
    -----
    Callbacks may be plain Python functions, which are compiled with `numba.njit`, or already jitted ones. Globals and closure
    variables are compile-time constants, as always with Numba: whatever changes between solves belongs in `theta`. The in-place
    forms are faster; the out-of-place forms allocate an array at every call.
    """

    def __init__(
        self,
        f: Callable,
        vjp: Callable | None = None,
        *,
        vjp_u: Callable | None = None,
        jvp: Callable | None = None,
        vjp_dot: Callable | None = None,
        jac: Callable | None = None,
        jac_sparsity: Any = None,
        mass: Any = None,
        states: Any = None,
        parameters: Any = None,
        breaks: Any = None,
        name: str | None = None,
        fused: bool = False,
        debug: bool = False,
    ):
        if fused and debug:
            raise ValueError("fused=True and debug=True exclude each other: check first, then fuse.")
        self.states = None if states is None else Fields.declared("states", states)
        self.parameters = None if parameters is None else Fields.declared("parameters", parameters)
        self.f: Callback = callback("f", f, debug, self.fields)
        self.derived: tuple[str, ...] = ()  # the callbacks that have been derived from f
        if vjp is None:
            vjp, vjp_u = self._derive(vjp_u)
        self.vjp: Callback = callback("vjp", vjp, debug, self.fields)
        self.vjp_u: Callback | None = None if vjp_u is None else callback("vjp_u", vjp_u, debug, self.fields)
        self._given_jvp: Callback | None = None if jvp is None else callback("jvp", jvp, debug, self.fields)
        self._given_vjp_dot: Callback | None = None if vjp_dot is None else callback("vjp_dot", vjp_dot, debug, self.fields)
        self.jac: Callback | None = None if jac is None else callback("jac", jac, debug, self.fields)
        self.sparsity: Any = read_sparsity(jac_sparsity)
        self.mass: Mass | None = read_mass(mass)
        self._given_breaks = None if breaks is None else float_vector("breaks", breaks)
        self.switches = switches_of(f, self.parameters, self._given_breaks)
        own = () if self._given_breaks is None else self._given_breaks
        self.breaks: np.ndarray = np.union1d(np.asarray(own, dtype=float), self.switches.times)
        self._found: dict[tuple, Any] = {}
        self._lock = threading.RLock()
        self._orders: dict[str, dict] = {"u0": {}, "theta": {}}  # in which named entries came
        self._ordered: set[Layout] = set()  # that have been found to be in order
        self.name = name or str(getattr(f, "__name__", "f"))
        self.fused = fused
        self.debug = debug
        for part in self.callbacks:
            part.check()
        self.calls = self._fused_calls() if fused else PORTABLE

    @property
    def fields(self) -> Pair:
        """The names of the states and of the parameters, each None where none are declared."""
        return self.states, self.parameters

    def layouts(self, u0: Any, theta: Any) -> tuple[Layout, Layout]:
        """How u0 and theta are laid out; a ValueError if they have other names than were declared."""
        return Layout("u0", u0, self.states), Layout("theta", theta, self.parameters)

    def entry(self, array: str, k: int) -> dict[str, Any]:
        """What a `SolveError` says of entry k of an array of callbacks: its `component`, and the `name` in the message."""
        fields = fields_of(array, self.fields)
        return {"component": component(fields, k), "name": entry_name(array, fields, k)}

    @property
    def callbacks(self) -> list[Callback]:
        """Those that were given."""
        given = self.f, self.vjp, self.vjp_u, self._given_jvp, self._given_vjp_dot, self.jac
        return [part for part in given if part is not None]

    def _from_source(self) -> Derived:
        from adjode.model.derived import derived  # here: who brings a vjp does not pay for it

        return derived(self.f.function)

    def _derive(self, vjp_u: Callable | None) -> tuple[Callable, Callable | None]:
        from adjode.model.derived import require_rank

        found = self._from_source()
        require_rank("f", self.f, found)
        self.derived = ("vjp",)
        if vjp_u is None and found.theta_costs:
            self.derived, vjp_u = ("vjp", "vjp_u"), found.vjp_u
        return found.vjp, vjp_u

    @property
    def jvp(self) -> Callback | None:
        """The product of the Jacobians with vectors: given, or derived from f when first asked for; None where that cannot be."""
        if self._given_jvp is not None:
            return self._given_jvp
        return self._derived_jvp if isinstance(self._derived_jvp, Callback) else None

    @functools.cached_property
    def jvps(self) -> Callback | None:
        """The derived jvp of many directions at once; None where jvp is given, or has no such form."""
        return self._many_at_once("jvps")

    @functools.cached_property
    def jvps_u(self) -> Callback | None:
        """The same where theta does not change."""
        return self._many_at_once("jvps_u")

    def _many_at_once(self, name: str) -> Callback | None:
        if self._given_jvp is not None or self.jvp is None:
            return None
        from adjode.model.derived import derived

        found = getattr(derived(self.f.function), name)
        return None if found is None else callback("jvps", found, self.debug)

    @property
    def jvp_refusal(self) -> str:
        """Why there is no jvp."""
        return self._derived_jvp if isinstance(self._derived_jvp, str) else ""

    @functools.cached_property
    def _derived_jvp(self) -> Callback | str:
        """Or why it cannot be derived."""
        from adjode.model.derived import derived

        try:
            return callback("jvp", derived(self.f.function).jvp, self.debug, self.fields)
        except TypeError as error:
            return str(error)

    @functools.cached_property
    def f_dt(self) -> Callback | str | None:
        """The derivative of f by time; None where f does not depend on time, or why it cannot be derived."""
        from adjode.model.derived import time_derivative

        return time_derivative(self.f, "f_dt", self.debug)

    @functools.cached_property
    def f_reads_time(self) -> bool:
        """Whether f reads the time; it may, where its source is not known."""
        return reads(self.f.function, 0)

    @functools.cached_property
    def sides(self) -> Callback | None:
        """Tells on which sides of its comparisons with the state f is; None where its source shows none that Numba compiles."""
        from adjode.derivation.sides import sides_of

        found = sides_of(self.f.function, self.f.kind.arguments(self.f.takes_in_place))
        if found is None:
            return None
        sides = callback("sides", found, self.debug)
        try:
            sides.check()
        except TypeError:
            return None
        return sides

    @property
    def vjp_dot(self) -> Callback:
        """How the products of vjp change, given or derived from f when first asked for.

        Raises
        ------
        TypeError
            If it cannot be derived.
        """
        from adjode.model.derived import derived

        if self._given_vjp_dot is not None:
            return self._given_vjp_dot
        try:
            return callback("vjp_dot", derived(self.f.function).vjp_dot, self.debug, self.fields)
        except TypeError as error:
            raise TypeError(
                f"second derivatives of {self.name} are needed, but cannot be derived from it ({str(error).rstrip('.')}): give "
                f"Dynamics a vjp_dot(t, u, theta, lam, v, w, lam_dot, u_bar_dot, theta_bar_dot)."
            ) from None

    @property
    def vjp_source(self) -> str:
        """The source of `vjp`, given or derived."""
        return inspect.getsource(self.vjp.source)

    @property
    def vjp_u_source(self) -> str | None:
        """The source of `vjp_u`; None if there is none."""
        return None if self.vjp_u is None else inspect.getsource(self.vjp_u.source)

    @property
    def jvp_source(self) -> str:
        """The source of the product with a direction, `jvp(t, u, theta, u_dot, theta_dot, du_dot)`, given or derived from f."""
        return self._from_source().jvp_source if self._given_jvp is None else inspect.getsource(self._given_jvp.source)

    @property
    def jac_source(self) -> str | None:
        """The source of `jac`, given or derived from f; None where f is long, or has loops."""
        return self._from_source().jac_source if self.jac is None else inspect.getsource(self.jac.source)

    def _fused_calls(self) -> Calls:
        parts, key = [part for part in self.callbacks if part.kind.of_dynamics], None
        if all(part.key for part in parts):
            key = hashlib.sha256(repr([(part.name, part.key) for part in parts]).encode()).hexdigest()[:24]
        return fused_calls({part.name: part.in_place for part in parts}, key, lambda: all(part.unchanged() for part in parts))

    def once(self, key: tuple, find: Callable[[], Any]) -> Any:
        """What `find()` gives, the first time that it is asked for: all solves share it, also those of other threads."""
        with self._lock:
            if key not in self._found:
                self._found[key] = find()
            return self._found[key]

    def require_order(self, *layouts: Layout, readers: Sequence[Callback | set[int]] | None = ()) -> None:
        """Raise a ValueError if named entries of u0 or theta do not lie where f looks for them; warn once of those never read.

        Declared names cannot be misspelt, and losses or initial states may read what f does not: of these nothing is said.
        `readers` are callbacks that are no part of this, but read theta as well, or entries that are read; None where others may.
        """
        for layout in layouts:
            if layout.names is None or layout in self._ordered:
                continue
            if layout.name == "theta" and not layout.is_declared and not self._orders["theta"] and readers is not None:
                given = [*(part for part in self.callbacks if part.name not in self.derived), *readers]
                read = [one if isinstance(one, set) else entries_read(one.source, len(one.kind.numbers) + 1) for one in given]
                warn_of_unread(layout, read, stacklevel=4)
            require_order(layout, self._unpacked[layout.name], self._orders[layout.name])
            self._ordered.add(layout)

    @functools.cached_property
    def _unpacked(self) -> dict[str, dict[str, int]]:
        f = getattr(self.f.given, "py_func", self.f.given)  # where what is taken by name is not an entry
        return {name: unpacked_names(f, argument) for name, argument in (("u0", 1), ("theta", 2))}

    def checked(self) -> Dynamics:
        """The same with every access checked for bounds."""
        return Dynamics(**self._given | {"fused": False, "debug": True})

    def __reduce__(self):
        sources = texts_of(self.f.given) if self.derived else set()
        return _rebuild, (self._given, sources.union(*(part.sources for part in self.callbacks)))

    @property
    def _given(self) -> dict[str, Any]:
        """The arguments that make the same; what was derived will be again."""
        return {
            **{part.name: part.given for part in self.callbacks if part.name not in self.derived},
            "jac_sparsity": self.sparsity,
            "mass": None if self.mass is None else self.mass.matrix,
            "states": None if self.states is None else self.states.shapes,
            "parameters": None if self.parameters is None else self.parameters.shapes,
            "breaks": self._given_breaks,
            "name": self.name,
            "fused": self.fused,
            "debug": self.debug,
        }

    def __copy__(self) -> Dynamics:
        """The callbacks are one thing, as functions are; what is found out about them each copy finds for itself."""
        other = object.__new__(type(self))
        other.__dict__.update(
            self.__dict__,
            _found={},
            _orders={"u0": {}, "theta": {}},
            _ordered=set(),
            _lock=threading.RLock(),
        )
        return other

    def __deepcopy__(self, memo: Any) -> Dynamics:
        return copy.copy(self)

    def __repr__(self) -> str:
        parts = [self.name]
        if self.derived:
            parts.append(f"{' and '.join(self.derived)} derived")
        if self.vjp_u is not None and "vjp_u" not in self.derived:
            parts.append("with vjp_u")
        if self._given_jvp is not None:
            parts.append("with jvp")
        if self._given_vjp_dot is not None:
            parts.append("with vjp_dot")
        if self.jac is not None:
            parts.append("with jac")
        if self.mass is not None:
            parts.append("with a singular mass matrix" if self.mass.singular else "with a mass matrix")
        if self.breaks.size:
            parts.append(f"{self.breaks.size} breaks")
        if self.fused:
            parts.append("fused")
        if self.debug:
            parts.append("debug")
        return f"Dynamics({', '.join(parts)})"


def _rebuild(given: dict[str, Any], sources: set[str]) -> Dynamics:
    remember(sources)
    return Dynamics(**given)
