"""SBML read by libsbml into a `Model`: what changes and how, what stays, and what happens when."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adjode.petab.extra import require
from adjode.petab.formulas import binary, from_sbml, name, names, number, safe, substitute

_PACKAGES = ("arrays", "comp", "dyn", "multi", "qual", "spatial")  # those that change what a model means


@dataclass(frozen=True)
class Happening:
    """An event of SBML: when `trigger` becomes true, what is assigned."""

    name: str
    trigger: ast.expr
    assignments: dict[str, ast.expr]
    priority: float


@dataclass
class Model:
    """A model of SBML, in the names of the file.

    Attributes
    ----------
    states : list of str
        What changes by reactions, rate rules and events: concentrations, or amounts where a species has only these.
    rates : dict of reaction -> expression
        Amounts per time.
    stoichiometry : dict of state -> dict of reaction -> float
    volumes : dict of state -> compartment
        Of those that are concentrations.
    rate_rules, rules : dict of name -> expression
        Derivatives; and what follows from the rest at any time, in an order in which it can be calculated.
    initial : dict of name -> expression
        Of states.
    constants : dict of name -> expression
        Numbers, and what initial assignments make of others.
    events : list of Happening
    """

    states: list[str] = field(default_factory=list)
    rates: dict[str, ast.expr] = field(default_factory=dict)
    stoichiometry: dict[str, dict[str, float]] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    rate_rules: dict[str, ast.expr] = field(default_factory=dict)
    rules: dict[str, ast.expr] = field(default_factory=dict)
    initial: dict[str, ast.expr] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    events: list[Happening] = field(default_factory=list)


def read_model(path: Path) -> Model:
    """The model of a file.

    Raises
    ------
    ValueError
        If the file is no SBML, or there is something in it that is not supported; the message names the element.
    """
    libsbml = require("libsbml")
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    document = libsbml.readSBMLFromFile(str(path))
    errors = [document.getError(k) for k in range(document.getNumErrors())]
    for error in errors:
        if error.getSeverity() >= libsbml.LIBSBML_SEV_ERROR:
            raise ValueError(f"{path.name} is not valid SBML: line {error.getLine()}: {error.getShortMessage()}.")
    for package in _PACKAGES:
        if document.isPackageEnabled(package) and (package != "comp" or document.getModel().getPlugin("comp").getNumSubmodels()):
            raise ValueError(f"{path.name} uses the package {package} of SBML, which is not supported.")
    return _Reader(document.getModel()).read()


class _Reader:
    def __init__(self, sbml: Any):
        self.sbml, self.model = sbml, Model()
        self.functions: dict[str, tuple[list[str], ast.expr]] = {}
        self.assigned: dict[str, ast.expr] = {}  # by initial assignments

    def read(self) -> Model:
        self._refuse()
        self._functions()
        self._rules()
        self._reactions()
        self._events()
        self._quantities()
        self.model.rules = _in_order(self.model.rules)
        return self.model

    def _refuse(self) -> None:
        if self.sbml.isSetConversionFactor():
            raise ValueError("the model has a conversion factor, which is not supported.")
        for rule in self.sbml.getListOfRules():
            if rule.isAlgebraic():
                raise ValueError(f"the algebraic rule {rule.getMetaId() or rule.getFormula()} is not supported.")

    def _expression(self, element: Any, what: str) -> ast.expr:
        if element is None or element.getMath() is None:
            raise ValueError(f"{what} has no formula.")
        try:
            return from_sbml(element.getMath(), self.functions)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{what}: {error}.") from None

    def _functions(self) -> None:
        for definition in self.sbml.getListOfFunctionDefinitions():
            arguments = [safe(definition.getArgument(k).getName()) for k in range(definition.getNumArguments())]
            try:
                body = from_sbml(definition.getBody(), self.functions)
            except ValueError as error:
                raise ValueError(f"function {definition.getId()}: {error}.") from None
            self.functions[definition.getId()] = arguments, body

    def _rules(self) -> None:
        for rule in self.sbml.getListOfRules():
            rules = self.model.rate_rules if rule.isRate() else self.model.rules
            rules[safe(rule.getVariable())] = self._expression(rule, f"the rule of {rule.getVariable()}")
        for assignment in self.sbml.getListOfInitialAssignments():
            symbol = assignment.getSymbol()
            self.assigned[safe(symbol)] = self._expression(assignment, f"the initial assignment of {symbol}")

    def _reactions(self) -> None:
        for reaction in self.sbml.getListOfReactions():
            identifier, law = reaction.getId(), reaction.getKineticLaw()
            if law is None:
                raise ValueError(f"reaction {identifier} has no kinetic law.")
            if reaction.isSetFast() and reaction.getFast():
                raise ValueError(f"reaction {identifier} is fast, which is not supported: give it a rate.")
            own = [*law.getListOfParameters(), *law.getListOfLocalParameters()]
            local = {safe(one.getId()): number(one.getValue()) for one in own}
            rate = self._expression(law, f"the rate of reaction {identifier}")
            self.model.rates[safe(identifier)] = substitute(rate, local) if local else rate
            for sign, references in ((-1.0, reaction.getListOfReactants()), (1.0, reaction.getListOfProducts())):
                for reference in references:
                    self._reference(reaction, reference, sign)

    def _reference(self, reaction: Any, reference: Any, sign: float) -> None:
        species, value = self.sbml.getSpecies(reference.getSpecies()), reference.getStoichiometry()
        varies = reference.isSetStoichiometryMath() or safe(reference.getId()) in {**self.assigned, **self.model.rules}
        if varies or not math.isfinite(value):
            raise ValueError(f"the stoichiometry of {species.getId()} in reaction {reaction.getId()} is not a number.")
        if not (species.getBoundaryCondition() or species.getConstant()):
            row = self.model.stoichiometry.setdefault(safe(species.getId()), {})
            row[safe(reaction.getId())] = row.get(safe(reaction.getId()), 0.0) + sign * value

    def _events(self) -> None:
        for event in self.sbml.getListOfEvents():
            what = f"event {event.getId() or event.getMetaId()}"
            if event.isSetDelay():
                raise ValueError(f"{what} has a delay, which is not supported.")
            trigger = event.getTrigger()
            if trigger.isSetPersistent() and not trigger.getPersistent():
                raise ValueError(f"the trigger of {what} is not persistent, which is not supported.")
            if trigger.isSetInitialValue() and not trigger.getInitialValue():
                raise ValueError(
                    f"the trigger of {what} is false before the start, which is not supported: set initialValue to true."
                )
            priority = self._expression(event.getPriority(), what) if event.isSetPriority() else number(0.0)
            if names(priority):
                raise ValueError(f"the priority of {what} is not a number, which is not supported.")
            found = {safe(one.getVariable()): self._expression(one, what) for one in event.getListOfEventAssignments()}
            value = float(ast.literal_eval(priority))
            self.model.events.append(Happening(what.removeprefix("event "), self._expression(trigger, what), found, value))

    # --- quantities ------------------------------------------------------------------------------

    def _quantities(self) -> None:
        model, assigned = self.model, {variable for event in self.model.events for variable in event.assignments}
        changing = {*model.rate_rules, *model.stoichiometry, *assigned}
        for identifier, value in self._all_values():
            if identifier in model.rules:
                continue
            if identifier in changing:
                model.states.append(identifier)
                model.initial[identifier] = self.assigned.get(identifier, value)
            else:
                model.constants[identifier] = self.assigned.get(identifier, value)
        for compartment in self.sbml.getListOfCompartments():
            identifier = safe(compartment.getId())
            if identifier in changing or identifier in model.rules:
                raise ValueError(f"compartment {identifier} changes its size, which is not supported.")

    def _all_values(self) -> Iterator[tuple[str, ast.expr]]:
        """Identifiers and their values in the file, not a number where there are none."""
        for compartment in self.sbml.getListOfCompartments():
            size = compartment.getSize() if compartment.isSetSize() else math.nan
            yield safe(compartment.getId()), number(size)
        for parameter in self.sbml.getListOfParameters():
            yield safe(parameter.getId()), number(parameter.getValue() if parameter.isSetValue() else math.nan)
        for species in self.sbml.getListOfSpecies():
            yield safe(species.getId()), self._initial(species)

    def _initial(self, species: Any) -> ast.expr:
        identifier, compartment = safe(species.getId()), self.sbml.getCompartment(species.getCompartment())
        if species.isSetConversionFactor():
            raise ValueError(f"species {identifier} has a conversion factor, which is not supported.")
        is_amount = species.getHasOnlySubstanceUnits() or compartment.getSpatialDimensionsAsDouble() == 0.0
        volume = name(safe(compartment.getId()))
        if not is_amount:
            self.model.volumes[identifier] = safe(compartment.getId())
        if species.isSetInitialAmount():
            amount = number(species.getInitialAmount())
            return amount if is_amount else binary(amount, ast.Div, volume)
        if species.isSetInitialConcentration():
            concentration = number(species.getInitialConcentration())
            return binary(concentration, ast.Mult, volume) if is_amount else concentration
        return number(math.nan)


def _in_order(rules: dict[str, ast.expr]) -> dict[str, ast.expr]:
    """Each behind those that it needs."""
    ordered: dict[str, ast.expr] = {}
    pending: list[str] = []

    def put(variable: str) -> None:
        if variable in ordered:
            return
        if variable in pending:
            raise ValueError(f"the rules of {' and '.join(pending[pending.index(variable) :])} depend on each other.")
        pending.append(variable)
        for needed in names(rules[variable]):
            if needed in rules:
                put(needed)
        pending.pop()
        ordered[variable] = rules[variable]

    for variable in rules:
        put(variable)
    return ordered
