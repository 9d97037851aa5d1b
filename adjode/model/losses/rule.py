"""`Rule`: a function of state and parameters that a loss is made of, and its derivative; `WithRule`: losses that may have one."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from adjode.compile.adapters import attempt, written
from adjode.compile.flags import linked
from adjode.compile.kinds import KINDS
from adjode.derivation.origins import remember, texts_of
from adjode.model.callbacks import Callback, callback, unwarned
from adjode.model.constants import captured
from adjode.model.fields import Pair
from adjode.model.losses.loss import OfFields
from adjode.model.messages import takes_in_place
from adjode.status import describe_error

Numbers = dict[str, float]  # the arguments ahead of the arrays, and k, which observation it is

_SECONDS = 0.02  # for trial calls
_UNIFORM = """
def uniform({taken}):
    return attempted(({given}))
"""


class Rule:
    """A callback of a loss, compiled, and its vjp, which is derived where it is not given.

    Attributes
    ----------
    function, vjp : Callback
    derived : bool
        Whether the vjp has been derived.
    key : str or None
        What stands for them on disk.
    """

    def __init__(self, option: str, kind: str, given: Any, fields: Pair):
        from adjode.model.derived import with_derivative  # here: who has no such loss does not pay for it

        self.function, self.vjp = with_derivative(option, kind, given, fields)
        self.derived, self._kind = callable(given), kind
        self._tried: set[tuple[int, ...]] = set()
        for part in (self.function, self.vjp):
            part.check()
        keys = self.function.key, self.vjp.key
        self.key = None if None in keys else f"{keys[0]}-{keys[1]}"

    @functools.cached_property
    def vjp_dot(self) -> Callback:
        """How the results of the vjp change, derived from the function.

        Raises
        ------
        TypeError
            If it cannot be derived.
        """
        from adjode.model.derived import derived

        function = self.function
        try:
            found = derived(function.function, function.kind.arguments(function.takes_in_place)).vjp_dot
        except TypeError as error:
            raise TypeError(
                f"second derivatives of the {function.kind.name} of the loss are needed, but cannot be derived from it "
                f"({str(error).rstrip('.')}): write it in a form that can be differentiated."
            ) from None
        return callback(f"{self._kind}_vjp_dot", found, fields=function.fields)

    @property
    def uniform(self) -> tuple[Callable, Callable]:
        """`function(k, t, u, theta, y)` and `vjp(k, t, u, theta, y_bar, u_bar, theta_bar)`, which return 1 if the user's raises.

        Those of densities take d in place of k and t.
        """
        numbers = ("d",) if "d" in self.function.kind.numbers else ("k", "t")
        taken = *numbers, "u", "theta"
        return _uniform(self.function, (*taken, *self.function.kind.outputs)), _uniform(self.vjp, (*taken, "y_bar", *_BARS))

    def require_inside(self, numbers: Numbers, u: np.ndarray, theta: np.ndarray, c: int) -> None:
        """Call both in plain Python, where NumPy checks indices: what they raise, or a Misfit for a result of another shape."""
        arrays = {"u": u.copy(), "theta": theta.copy(), "y": np.zeros(c), "y_bar": np.ones(c)}
        arrays |= {"u_bar": np.zeros_like(u), "theta_bar": np.zeros_like(theta)}
        for part in (self.function, self.vjp):
            names = part.kind.arguments(part.takes_in_place)
            with np.errstate(all="ignore"), unwarned():
                result = part.plain(*({**numbers, **arrays}[name] for name in names))
            if part.name == "observe" and not part.takes_in_place and np.shape(result) != (c,):
                raise Misfit(f"observe returns an array of shape {np.shape(result)}, but y_obs has {c} columns.")
            if part.kind.returns_number and np.ndim(result):
                raise Misfit(
                    f"{part.kind.name} must return a number, but it returns an array of shape {np.shape(result)}: sum it up."
                )

    def raise_again(self, numbers: Numbers, u: np.ndarray, theta: np.ndarray, c: int) -> None:
        """What compiled calls raise, as plain Python raises it if it does, for that knows the user's line."""
        arrays = {"u": u, "theta": theta, "y": np.zeros(c), "value": np.zeros(1), "y_bar": np.ones(c)}
        arrays |= {"u_bar": np.zeros_like(u), "theta_bar": np.zeros_like(theta)}
        for part in (self.function, self.vjp):
            try:
                part(*({**numbers, **arrays}[name] for name in part.kind.arguments(in_place=True)))
            except Exception:
                self.require_inside(numbers, u, theta, c)
                raise

    def try_calls(self, observations: list[Numbers], u: np.ndarray, theta: np.ndarray, c: int, loss: str) -> None:
        """Raise a ValueError if a callback indexes out of bounds; the last observation first, the most likely one to do so."""
        if (key := (u.size, theta.size, c, len(observations))) in self._tried:
            return
        end = time.thread_time() + _SECONDS
        for numbers in reversed(observations):
            try:
                self.require_inside(numbers, u, theta, c)
            except IndexError as error:
                sizes = f"theta has {theta.size} entries" if "d" in numbers else f"u has {u.size} entries, theta {theta.size}"
                raise ValueError(
                    f"the callback of {loss} indexes an array out of bounds at observation {numbers['k']} of {len(observations)}, "
                    f"where {sizes} ({describe_error(error)}): check the lengths of what it reads."
                ) from error
            except Misfit:
                raise
            except Exception:  # what only compiled code can do, or an error that the run will report
                break
            if time.thread_time() > end:
                break
        self._tried.add(key)


def rule_of(option: str, kind: str, given: Any, fields: Pair, make: Callable[..., Rule] = Rule) -> Rule:
    """The same rule for the same function and the constants that it captures, so that losses share what is compiled."""
    try:
        functions = given if isinstance(given, tuple) else (given,)
        return _cached(option, kind, given, fields, make, tuple(captured(one) for one in functions))
    except TypeError:  # what cannot be hashed, or is wrong: the constructor says what
        return make(option, kind, given, fields)


@functools.lru_cache(maxsize=128)
def _cached(option: str, kind: str, given: Any, fields: Pair, make: Callable[..., Rule], inside: tuple) -> Rule:
    return make(option, kind, given, fields)


def readers_in(loss: Any) -> list[Callback | set[int]]:
    """What of a loss reads theta: callbacks, and entries by their places."""
    return loss.readers if isinstance(loss, WithRule) else []


class Misfit(ValueError):
    """A result of a wrong shape."""


_BARS = "u_bar", "theta_bar"


def _uniform(callback: Callback, taken: tuple[str, ...]) -> Callable:
    kind = callback.kind
    parts = {"taken": ", ".join(taken), "given": ", ".join(kind.arguments(in_place=True))}
    return linked(written(_UNIFORM, kind, parts, attempted=attempt(callback.in_place)))


class WithRule(OfFields):
    """A loss that may be made of a function of state and parameters.

    Attributes
    ----------
    option, kind : str
        What the keyword is called, and what kind of callback that is.
    of : callable, pair of callables, or None
        The function, or it and its vjp, as given.
    """

    option: ClassVar[str]
    kind: ClassVar[str]
    of: Any = None

    def _take(self, given: Any) -> None:
        """Keep what is given; a TypeError if it has other arguments than it should."""
        if callable(given) or not isinstance(given, tuple):
            takes_in_place(KINDS[self.kind], given)
        self.of = given

    @functools.cached_property
    def rule(self) -> Rule:
        return rule_of(self.option, self.kind, self.of, self.fields)

    @property
    def rules(self) -> list[Rule]:
        return [] if self.of is None else [self.rule]

    @property
    def readers(self) -> list[Callback | set[int]]:
        """What reads theta: callbacks, and entries by their places."""
        return [rule.function for rule in self.rules]

    def of_fields(self, fields: Pair) -> Any:
        other = super().of_fields(fields)
        if other is not self:
            other.__dict__.pop("rule", None)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """What has been made of the function is made again: it belongs to no module."""
        functions = self.of if isinstance(self.of, tuple) else (self.of,)
        state = {**self.__dict__, "sources": texts_of(*functions)}
        state.pop("rule", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        remember(state.pop("sources"))
        self.__dict__.update(state)
