"""`Family`: what methods of one kind can do, and what takes their steps; `Solver`: a family with a storage of matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from adjode.linalg.linear import make_linear
from adjode.steppers.carried_error import make_step_error
from adjode.steppers.esdirk import EsdirkStepper, make_tangent_esdirk, make_transposed_esdirk
from adjode.steppers.frozen import Frozen
from adjode.steppers.radau import RadauStepper, make_tangent_radau, make_transposed_radau
from adjode.steppers.rosenbrock import RosenbrockStepper
from adjode.steppers.stepper import Stepper
from adjode.steppers.tangents import Push
from adjode.steppers.transposed import SAME_STEP
from adjode.tableaus import Tableau


@dataclass(frozen=True)
class Family:
    """
    Attributes
    ----------
    name : str
        As tableaus name it.
    make_stepper : callable or None
        `make_stepper(derivative, frozen)` for implicit steps; None if there are none.
    make_transposed_step : callable or None
        `make_transposed_step(pull, product, frozen)` for those, if they can be transposed with first derivatives alone.
    make_tangent_step : callable or None
        `make_tangent_step(push, frozen)`, their tangents, of families that have a transpose.
    keeps_steps : bool
        As in `Stepper`.
    takes_mass_matrix : bool
    has_stage_quadrature : bool
        Whether the stages with the weights of the method are a quadrature rule.
    switches : bool
        Whether explicit steps are taken too.
    """

    name: str
    make_stepper: Callable[[Callable, Frozen], Stepper] | None = None
    make_transposed_step: Callable[[Callable, Callable, Frozen], Callable] | None = None
    make_tangent_step: Callable[[Push, Frozen], Callable] | None = None
    keeps_steps: bool = False
    takes_mass_matrix: bool = False
    has_stage_quadrature: bool = True
    switches: bool = False

    @property
    def implicit(self) -> bool:
        return self.make_stepper is not None

    @property
    def transposable(self) -> bool:
        """Whether steps have an exact transpose, for the discrete adjoint, and tangents."""
        return not self.implicit or self.make_transposed_step is not None

    @property
    def records_stages(self) -> bool:
        """Whether that needs the states of the stages, which would have to be solved for again."""
        return self.implicit and self.transposable


EXPLICIT_FAMILY = Family("explicit")
_RADAU = Family("radau", RadauStepper, make_transposed_radau, make_tangent_radau, keeps_steps=True, takes_mass_matrix=True)
FAMILIES = {
    family.name: family
    for family in (
        EXPLICIT_FAMILY,
        _RADAU,
        Family("esdirk", EsdirkStepper, make_transposed_esdirk, make_tangent_esdirk, keeps_steps=True),
        Family("rosenbrock", RosenbrockStepper, has_stage_quadrature=False),
        replace(_RADAU, name="auto", takes_mass_matrix=False, switches=True),
    )
}


def family_of(tableau: Tableau) -> Family:
    return FAMILIES[tableau.family]


@dataclass(frozen=True)
class Solver:
    """What takes the steps: the family of methods, and for implicit ones the storage of their matrices."""

    family: Family = EXPLICIT_FAMILY
    kind: str = ""
    massed: bool = False  # whether there is a mass matrix

    @property
    def implicit(self) -> bool:
        return self.family.implicit

    @property
    def switches(self) -> bool:
        return self.family.switches

    def entry_name(self, name: str) -> str:
        mass = "-mass" if self.massed else ""
        return f"{name}-{self.family.name}-{self.kind}{mass}" if self.implicit else name

    def stepper(self, derivative: Callable, jacobian: Callable, *, turned: bool = False) -> Stepper | None:
        """The stepper of an implicit family; None for explicit methods, whose stepper the loop makes."""
        make = self.family.make_stepper
        if make is None:
            return None
        place = 0.5 if turned and self.family.keeps_steps else 0.0
        return make(derivative, Frozen(jacobian, make_linear(self.kind, self.massed), turned, place))

    def transposed_step(
        self, pull: Callable, pull_error: Callable, product: Callable, jacobian: Callable
    ) -> tuple[Callable, Callable]:
        """The kernels that pull cotangents back over a step and then find its error: `(frame, t, h, t_new, V) -> status`."""
        make, frozen = self.family.make_transposed_step, self._preconditioner(jacobian)
        assert make is not None
        return make(pull, product, frozen), make_step_error(pull_error, product, frozen)

    def tangent_step(self, push: Push, jacobian: Callable) -> Callable:
        """The kernel that finds the tangents of a step: `(frame, t, h, t_new, V) -> status`."""
        make = self.family.make_tangent_step
        assert make is not None
        return make(push, self._preconditioner(jacobian))

    def _preconditioner(self, jacobian: Callable) -> Frozen:
        return Frozen(jacobian, make_linear(self.kind, self.massed), same_step=SAME_STEP)


EXPLICIT = Solver()
