"""What is wrong or not supported: one sentence, which names the element."""

import shutil

import pytest

from adjode.petab import load
from adjode.petab.__main__ import main
from tests import ROOT

FOLDER = ROOT / "examples" / "petab"


def changed(tmp_path, name, file, old, new):
    for path in FOLDER.glob(f"{name}*"):
        shutil.copy(path, tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    return tmp_path / f"{name}.yaml"


TABLES = {
    "no yaml entry": ("receptor.yaml", "problems:", "problem:", "not a PEtab problem of version 1"),
    "version": ("receptor.yaml", "format_version: 1", "format_version: 2.0.0", "version 2.0.0 of PEtab"),
    "no file": ("receptor.yaml", "receptor_observables.tsv", "nothing.tsv", "there is no file .*nothing.tsv"),
    "no column": ("receptor_parameters.tsv", "parameterId", "name", "has no column parameterId"),
    "scale": ("receptor_parameters.tsv", "k_on\tlog10", "k_on\tln", "parameterScale of parameter k_on must be one of"),
    "prior": ("receptor_parameters.tsv", "parameterScaleNormal", "gamma", "objectivePriorType of parameter k_off must be one of"),
    "number": ("receptor_parameters.tsv", "0.8\t1", "much\t1", "nominalValue of parameter k_on must be a number"),
    "column": ("receptor_conditions.tsv", "scale", "scaling", "a column scaling, which is not in the model"),
    "rule": ("receptor_conditions.tsv", "\tscale", "\tL", "a column L, which follows from a rule"),
    "cell": (
        "receptor_conditions.tsv",
        "low\t0.5",
        "low\tmuch",
        "column ligand: much is not in the table of parameters",
    ),
    "formula": ("receptor_observables.tsv", "A / (A + R)", "A / (A + ", "observable fraction: .* is not a PEtab formula"),
    "function": ("receptor_observables.tsv", "A / (A + R)", "gamma(A)", "observable fraction: `gamma.A.` is not a PEtab function"),
    "unknown name": ("receptor_observables.tsv", "A / (A + R)", "A / (A + X)", "X is neither in the model nor in the tables"),
    "observable": ("receptor_measurements.tsv", "feedback\t", "feed\t", "of feed, which is not in the table of observables"),
    "condition": ("receptor_measurements.tsv", "\tlow\t", "\tlower\t", "under lower, which is not in the table of conditions"),
    "override": ("receptor_measurements.tsv", "scale_a\tsd_A", "\tsd_A", "gives observableParameter1_active no value"),
    "too many overrides": (
        "receptor_measurements.tsv",
        "\tscale_a\t",
        "\tscale_a;scale_b\t",
        "has 2 observableParameters, but the formulas of active read 1",
    ),
    "twice": ("receptor_parameters.tsv", "k_off\t", "k_on\t", "more than one row with the parameterId k_on"),
    "estimate": ("receptor_parameters.tsv", "0.8\t1", "0.8\t2", "estimate of parameter k_on must be 0 or 1, but it is 2"),
    "bounds": ("receptor_parameters.tsv", "0.001\t1000.0", "1000.0\t0.001", "lowerBound of parameter k_on must"),
    "scaled bound": ("receptor_parameters.tsv", "log10\t0.001", "log10\t-3", "not be negative on the scale log10, but it is -3"),
    "nominal value": ("receptor_parameters.tsv", "0.8\t1", "inf\t1", "nominalValue of parameter k_on must be finite"),
    "numbers of a prior": ("receptor_parameters.tsv", "-0.2;0.5", "a;b", "Parameters of parameter k_off must be numbers"),
    "no noise": ("receptor_observables.tsv", "\t0.02\t", "\t\t", "^observable fraction has no noiseFormula"),
    "data on a scale": ("receptor_measurements.tsv", "0.3406", "-0.3406", "the data of 'feedback' must be finite and positive"),
    "no model": ("receptor.yaml", "problems:", "problems: []\nold:", "has an empty entry problems"),
    "no scale": ("receptor_observables.tsv", "\t0.02\t", "\t-0.02\t", "the noise of fraction must be positive, .* gives -0.02"),
    "no yaml": ("receptor.yaml", "problems:", "problems: [1,", "receptor.yaml is not valid yaml: line"),
    "time": ("receptor_measurements.tsv", "\t8.0\t", "\t-8.0\t", "at time -8, before the start"),
}


@pytest.mark.parametrize("case", TABLES.values(), ids=TABLES.keys())
def test_tables(tmp_path, case):
    file, old, new, message = case
    with pytest.raises(ValueError, match=message):
        load(changed(tmp_path, "receptor", file, old, new))


def test_a_nominal_value_outside_its_bounds(tmp_path):
    with pytest.warns(UserWarning, match=r"outside their bounds start at the nearer bound: k_e .0, now 0.001."):
        fit = load(
            changed(tmp_path, "dosing", "dosing_parameters.tsv", "k_e\tlog10\t0.001\t1000.0\t0.5", "k_e\tlog10\t0.001\t1000.0\t0")
        )
    assert fit.x0[fit.names.index("k_e")] == pytest.approx(-3.0)


DELAY = '<delay><math xmlns="http://www.w3.org/1998/Math/MathML"><cn>1</cn></math></delay>'
MODELS = {
    "delay": ("dosing", "</trigger>", f"</trigger>{DELAY}", "event top_up has a delay"),
    "initial value": ("dosing", 'initialValue="true"', 'initialValue="false"', "the trigger of event top_up is false before"),
    "persistent": ("dosing", 'persistent="true"', 'persistent="false"', "the trigger of event top_up is not persistent"),
    "algebraic": ("dosing", '<rateRule variable="enzyme">', "<algebraicRule>", "is not supported|not valid SBML"),
    "conversion": ("dosing", '<species id="G"', '<species id="G" conversionFactor="drift"', "species G has a conversion factor"),
    "state": ("dosing", "<max/>", "<quotient/>", "not supported|not valid SBML"),
    "no law": ("receptor", "<kineticLaw>", "<notes>", "not valid SBML|has no kinetic law"),
    "no value": (
        "receptor",
        '<compartment id="cell" spatialDimensions="3" size="2"',
        '<compartment id="cell" spatialDimensions="3"',
        "cell",
    ),
}


@pytest.mark.parametrize("case", MODELS.values(), ids=MODELS.keys())
def test_models(tmp_path, case):
    name, old, new, message = case
    with pytest.raises(ValueError, match=message):
        load(changed(tmp_path, name, f"{name}.xml", old, new))


def test_a_jump_where_a_state_passes_a_value_must_be_an_event(tmp_path):
    """`max(B, 0)` is continuous, `B > 1` in a piecewise is not."""
    new = (
        "<piecewise><piece><cn>1</cn><apply><gt/><ci>B</ci><cn>1</cn></apply></piece><otherwise><cn>0</cn></otherwise></piecewise>"
    )
    path = changed(tmp_path, "dosing", "dosing.xml", "<max/>", f"<max/>{new}")
    with pytest.raises(ValueError, match=r"the rate of clear may jump where B > 1.0 changes"):
        load(path)


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    main([str(FOLDER / "dosing.yaml"), "--plot", str(tmp_path)])
    said = capsys.readouterr().out
    assert "2 experiments, 28 data, 5 parameters to fit" in said and "log-likelihood at the nominal values:" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.png", "whole.png"]
    main([str(FOLDER / "dosing.yaml"), "--source"])
    assert "def f(t, u, theta, du):" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nothing.yaml")])
    assert "there is no file" in capsys.readouterr().err
