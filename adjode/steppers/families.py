"""`Solver`: the steppers of implicit methods and their transposes, by family and storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adjode.linalg.linear import make_linear
from adjode.steppers import esdirk, radau, rosenbrock
from adjode.steppers.frozen import Frozen
from adjode.steppers.implicit import ImplicitStepper
from adjode.steppers.transposed import SAME_STEP

STEPPERS: dict[str, Any] = {
    "radau": radau.RadauStepper,
    "esdirk": esdirk.EsdirkStepper,
    "rosenbrock": rosenbrock.RosenbrockStepper,
    "auto": radau.RadauStepper,
}
TRANSPOSES: dict[str, Callable[[Callable, Callable, Frozen], Callable]] = {
    "radau": radau.make_transposed_step,
    "esdirk": esdirk.make_transposed_step,
    "auto": radau.make_transposed_step,
}


@dataclass(frozen=True)
class Solver:
    """What takes the steps: the family of methods, and for implicit ones the storage of their matrices."""

    family: str = "explicit"
    kind: str = ""
    massed: bool = False  # whether there is a mass matrix

    @property
    def implicit(self) -> bool:
        return self.family != "explicit"

    @property
    def switches(self) -> bool:
        """Whether explicit steps are taken too."""
        return self.family == "auto"

    def entry_name(self, name: str) -> str:
        mass = "-mass" if self.massed else ""
        return f"{name}-{self.family}-{self.kind}{mass}" if self.implicit else name

    def stepper(self, derivative: Callable, jacobian: Callable, *, turned: bool = False) -> ImplicitStepper | None:
        """The stepper of an implicit family; None for explicit methods, whose stepper the loop makes."""
        if not self.implicit:
            return None
        middle = turned and STEPPERS[self.family].keeps_steps
        return STEPPERS[self.family](
            derivative, Frozen(jacobian, make_linear(self.kind, self.massed), turned, 0.5 if middle else 0.0)
        )

    def transposed_step(self, pull: Callable, product: Callable, jacobian: Callable) -> Callable:
        """The kernel that pulls cotangents back over a step: `(frame, t, h, t_new, V) -> status`."""
        return TRANSPOSES[self.family](pull, product, Frozen(jacobian, make_linear(self.kind, self.massed), same_step=SAME_STEP))


EXPLICIT = Solver()
