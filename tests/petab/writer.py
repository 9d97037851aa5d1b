"""Problems for tests, written from formulas."""

import libsbml


def sbml(*, compartments, species, parameters, reactions, rules=(), assigned=(), events=()):
    """The text of a model. Species are {name: (compartment, start)}, reactions (reactants, products, formula), events (trigger,
    variable, formula).
    """
    document = libsbml.SBMLDocument(3, 2)
    model = document.createModel()
    for name, size in compartments.items():
        made = model.createCompartment()
        made.setId(name), made.setSize(size), made.setConstant(True), made.setSpatialDimensions(3)
    for name, (compartment, start) in species.items():
        made = model.createSpecies()
        made.setId(name), made.setCompartment(compartment), made.setInitialConcentration(start)
        made.setConstant(False), made.setBoundaryCondition(False), made.setHasOnlySubstanceUnits(False)
    for name, value in parameters.items():
        made = model.createParameter()
        made.setId(name), made.setConstant(name not in dict(rules))
        if value is not None:
            made.setValue(value)
    for variable, formula in rules:
        made = model.createAssignmentRule()
        made.setVariable(variable), made.setMath(libsbml.parseL3Formula(formula))
    for variable, formula in assigned:
        made = model.createInitialAssignment()
        made.setSymbol(variable), made.setMath(libsbml.parseL3Formula(formula))
    for k, (trigger, variable, formula) in enumerate(events):
        made = model.createEvent()
        made.setId(f"e{k}"), made.setUseValuesFromTriggerTime(True)
        condition = made.createTrigger()
        condition.setInitialValue(True), condition.setPersistent(True), condition.setMath(libsbml.parseL3Formula(trigger))
        assignment = made.createEventAssignment()
        assignment.setVariable(variable), assignment.setMath(libsbml.parseL3Formula(formula))
    _reactions(model, reactions)
    return libsbml.writeSBMLToString(document)


def _reactions(model, reactions):
    for k, (reactants, products, formula) in enumerate(reactions):
        made = model.createReaction()
        made.setId(f"r{k}"), made.setReversible(False)
        for names, create in ((reactants, made.createReactant), (products, made.createProduct)):
            for name in names:
                reference = create()
                reference.setSpecies(name), reference.setStoichiometry(1.0), reference.setConstant(True)
        made.createKineticLaw().setMath(libsbml.parseL3Formula(formula))


def write(folder, model, parameters, conditions, observables, measurements):
    """The yaml file of a problem whose tables are lists of rows, the first with the names of columns."""
    files = {"parameters": parameters, "conditions": conditions, "observables": observables, "measurements": measurements}
    for file, rows in files.items():
        (folder / f"{file}.tsv").write_text("\n".join("\t".join(map(str, row)) for row in rows) + "\n")
    (folder / "model.xml").write_text(model)
    (folder / "problem.yaml").write_text(
        "format_version: 1\nparameter_file: parameters.tsv\nproblems:\n- sbml_files: [model.xml]\n"
        "  condition_files: [conditions.tsv]\n  observable_files: [observables.tsv]\n  measurement_files: [measurements.tsv]\n"
    )
    return folder / "problem.yaml"
